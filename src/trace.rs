//! What is told to `tracing`, if the feature is on.
//!
//! Nothing here holds a byte that a peer has sent, nor the text of an error that might quote one. What a
//! peer can bring about as often as it likes is told at the level `DEBUG`, so that it cannot fill a log;
//! what an operator should know at `INFO` and `WARN`. Without the feature all of this is nothing.
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

#[cfg(feature = "serve")]
use std::{fmt, future::Future, io};

use crate::framing::{FrameError, Limit};
use crate::session::{CloseReason, Timeout, Traffic};

macro_rules! event {
    ($($argument:tt)*) => {
        #[cfg(feature = "tracing")]
        tracing::event!($($argument)*)
    };
}

/// [`Channel::run`](crate::Channel::run) begins.
pub(crate) fn opened() {
    event!(tracing::Level::DEBUG, "channel opened");
}

/// [`Channel::run`](crate::Channel::run) ends.
pub(crate) fn closed<E>(reason: &CloseReason<E>, traffic: Traffic) {
    let (reason, kind) = match reason {
        CloseReason::PeerClosed => ("closed by the peer", None),
        CloseReason::Truncated => ("closed by the peer in mid-frame", None),
        CloseReason::Done => ("done", None),
        CloseReason::Aborted => ("aborted", None),
        CloseReason::Upgrade => ("upgrade", None),
        CloseReason::Handler(_) => ("the handler failed", None),
        CloseReason::Io(error) => ("the stream failed", Some(error.kind())),
        CloseReason::Producer(error) => ("a producer failed", Some(error.kind())),
        CloseReason::Frame(error) => {
            let reason = match error {
                FrameError::WrongEnd => "wrong end of a frame",
                _ => "overlong frame",
            };
            (reason, None)
        }
        CloseReason::Timeout(_) => ("deadline passed", None),
    };
    event!(
        tracing::Level::DEBUG,
        reason,
        error = kind.map(tracing::field::debug),
        read = traffic.read,
        written = traffic.written,
        "channel closed"
    );
}

/// A frame has passed its limit.
#[cold]
pub(crate) fn overlong(limit: Limit) {
    #[cfg(feature = "tracing")]
    if let Limit::Fail(limit) | Limit::Skip(limit) = limit {
        event!(tracing::Level::DEBUG, limit, "frame longer than its limit");
    }
}

/// A deadline has passed.
#[cold]
pub(crate) fn timed_out(timeout: Timeout) {
    event!(tracing::Level::DEBUG, deadline = ?timeout, "deadline passed");
}

/// What a connection's task is told in: its number and its peer.
#[cfg(feature = "serve")]
pub(crate) struct Connection {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[cfg(feature = "serve")]
impl Connection {
    /// A connection was accepted.
    pub(crate) fn accepted(number: u64, peer: &impl fmt::Debug) -> Self {
        let connection = Connection {
            #[cfg(feature = "tracing")]
            span: tracing::debug_span!("connection", number, ?peer),
        };
        #[cfg(feature = "tracing")]
        connection.span.in_scope(|| tracing::debug!("connection accepted"));
        connection
    }

    /// All that is told in this future is told of this connection.
    pub(crate) fn around<F: Future>(self, serving: F) -> impl Future<Output = F::Output> + use<F> {
        #[cfg(feature = "tracing")]
        return tracing::Instrument::instrument(serving, self.span);
        #[cfg(not(feature = "tracing"))]
        return serving;
    }
}

/// Accept failed: for want of something, unless the failure is of no consequence.
#[cfg(feature = "serve")]
#[cold]
pub(crate) fn accept_failed(error: &io::Error, wanting: bool) {
    if wanting {
        event!(tracing::Level::WARN, %error, "accept failed");
    } else {
        event!(tracing::Level::DEBUG, %error, "accept failed");
    }
}

/// No more connections are accepted until one ends.
#[cfg(feature = "serve")]
pub(crate) fn at_connection_limit(connections: usize) {
    event!(tracing::Level::DEBUG, connections, "connection limit reached");
}

/// A connection's task panicked.
#[cfg(feature = "serve")]
#[cold]
pub(crate) fn panicked() {
    event!(tracing::Level::WARN, "connection panicked");
}

/// Nothing more is accepted.
#[cfg(feature = "serve")]
pub(crate) fn shutdown(connections: usize) {
    event!(tracing::Level::INFO, connections, "server shutting down");
}

/// The deadline of the shutdown has passed.
#[cfg(feature = "serve")]
pub(crate) fn aborting(connections: usize) {
    event!(tracing::Level::WARN, connections, "aborting connections at the shutdown deadline");
}
