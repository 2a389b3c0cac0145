//! The server's certificate, which is given or generated.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Takes a certificate and its key from files in the PEM format, or generates one that no authority has signed. A
/// client that encrypts only if it can, as mail servers do among themselves, does not check the signature.
pub(crate) fn config(files: Option<(&Path, &Path)>) -> io::Result<Arc<ServerConfig>> {
    let (chain, key) = match files {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
            let key = PrivateKeyDer::from_pem_file(key);
            (chain.map_err(io::Error::other)?, key.map_err(io::Error::other)?)
        }
        None => {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
                .map_err(io::Error::other)?;
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            (vec![made.cert.der().clone()], key.into())
        }
    };
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}
