//! The types that bytes can be queued from. The length of a payload decides what becomes of it: a small one is
//! copied to the buffer in which the queue gathers small items, and only a large one becomes [`Bytes`].

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Bytes that can be queued for output.
///
/// It is implemented for what people hold bytes in, so that `push` takes a literal, a `String`, a `Vec<u8>`,
/// [`Bytes`], a [`Cow`], a [`Chunk`](crate::Chunk), or a reference to any of these. Owned bytes are queued without
/// copying them when there are 1024 or more; borrowed bytes and arrays are always copied, once. To queue a large
/// `'static` slice uncopied, wrap it in [`Bytes::from_static`].
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
/// assert_eq!(queue(String::from_utf8_lossy(b"it is")), "it is");
/// ```
pub trait Payload {
    /// The bytes.
    fn as_bytes(&self) -> &[u8];

    /// Converts this into [`Bytes`], without copying when it owns them on the heap.
    fn into_bytes(self) -> Bytes
    where
        Self: Sized;
}

impl<T: AsRef<[u8]> + ?Sized> Payload for &T {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        self.as_ref()
    }

    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self.as_ref())
    }
}

impl<const N: usize> Payload for [u8; N] {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        self
    }

    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}

macro_rules! owned {
    ($($owned:ty),*) => {$(
        impl Payload for $owned {
            #[inline]
            fn as_bytes(&self) -> &[u8] {
                self.as_ref()
            }

            fn into_bytes(self) -> Bytes {
                self.into()
            }
        }
    )*};
}

owned!(Bytes, BytesMut, Vec<u8>, Box<[u8]>, String);

impl Payload for Box<str> {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        str::as_bytes(self)
    }

    fn into_bytes(self) -> Bytes {
        String::from(self).into()
    }
}

impl Payload for Cow<'_, [u8]> {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        self
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Cow::Owned(bytes) => bytes.into(),
        }
    }
}

impl Payload for Cow<'_, str> {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        str::as_bytes(self)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Cow::Borrowed(text) => Bytes::copy_from_slice(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        }
    }
}
