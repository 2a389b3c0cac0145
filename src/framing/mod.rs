//! Framing without I/O: bytes in, events out. Nothing here knows of a runtime, a clock or a stream.

pub(crate) mod event;
pub(crate) mod framer;
pub(crate) mod limit;
pub(crate) mod search;
pub(crate) mod step;
pub(crate) mod terminator;
