use bytes::{Bytes, BytesMut};

/// Bytes that can be queued for output.
///
/// It is implemented for what people hold bytes in, so that `push` takes a literal, a `String`, a
/// `Vec<u8>`, [`Bytes`], or anything of these by reference. Owned bytes are queued without copying
/// them when there are many; borrowed bytes are always copied, once. To queue a large `'static` slice
/// uncopied, wrap it in [`Bytes::from_static`].
///
/// ```
/// use asynchat::Payload;
/// use bytes::Bytes;
///
/// fn queue(payload: impl Payload) -> Bytes {
///     payload.into_bytes()
/// }
/// assert_eq!(queue("NOOP\r\n"), queue(b"NOOP\r\n"));
/// assert_eq!(queue(format!("{} {}", 200, "OK")), queue(b"200 OK".to_vec()));
/// ```
pub trait Payload: AsRef<[u8]> {
    /// Converts this into [`Bytes`], without copying when it owns them.
    fn into_bytes(self) -> Bytes
    where
        Self: Sized;
}

impl<T: AsRef<[u8]> + ?Sized> Payload for &T {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self.as_ref())
    }
}

impl<const N: usize> Payload for [u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}

macro_rules! owned {
    ($($owned:ty),*) => {$(
        impl Payload for $owned {
            fn into_bytes(self) -> Bytes {
                self.into()
            }
        }
    )*};
}

owned!(Bytes, BytesMut, Vec<u8>, Box<[u8]>, String);
