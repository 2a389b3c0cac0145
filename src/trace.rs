//! Events for `tracing`, if the feature is on.
//!
//! No event contains a byte that a peer has sent, nor the text of an error that might quote one. What a peer can
//! cause as often as it likes is at the level `DEBUG`, so that it cannot fill a log; what an operator should know
//! is at `INFO` and `WARN`. The span of a connection, which is no line of its own, is at `INFO`, so that the
//! application's events at that level name the peer too. Without the feature these functions do nothing.
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

#[cfg(feature = "serve")]
use std::{fmt, future::Future, io};

use crate::framing::Limit;
use crate::session::{CloseReason, Timeout, Traffic};

macro_rules! event {
    ($($argument:tt)*) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: "asynchat", $($argument)*)
    };
}

/// [`Channel::run`](crate::Channel::run) begins.
pub(crate) fn opened() {
    event!(tracing::Level::DEBUG, "channel opened");
}

/// [`Channel::run`](crate::Channel::run) ends.
pub(crate) fn closed<E>(reason: &CloseReason<E>, traffic: Traffic) {
    let kind = match reason {
        CloseReason::Io(error) | CloseReason::Producer(error) => Some(error.kind()),
        _ => None,
    };
    event!(
        tracing::Level::DEBUG,
        reason = %reason.outline(),
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

/// The span of a connection's task: the connection's number and its peer.
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
            span: tracing::info_span!(target: "asynchat", "connection", number, ?peer),
        };
        #[cfg(feature = "tracing")]
        connection.span.in_scope(|| {
            event!(tracing::Level::DEBUG, "connection accepted");
        });
        connection
    }

    /// Runs a future in the span, in which an event is emitted too if the future is aborted or panics.
    pub(crate) fn around<F: Future>(self, serving: F) -> impl Future<Output = F::Output> + use<F> {
        #[cfg(feature = "tracing")]
        return {
            let serving = serving::Serving::new(serving);
            tracing::Instrument::instrument(serving, self.span)
        };
        #[cfg(not(feature = "tracing"))]
        return serving;
    }
}

/// Accept failed. `wanting` is false if only the connection that was to be accepted is concerned.
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

#[cfg(all(feature = "tracing", feature = "serve"))]
mod serving {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use pin_project_lite::pin_project;

    pin_project! {
        /// A connection's future, which emits an event if it is dropped before it is ready.
        pub(super) struct Serving<F> {
            #[pin]
            future: F,
            progress: Progress,
        }

        impl<F> PinnedDrop for Serving<F> {
            fn drop(this: Pin<&mut Self>) {
                match this.progress {
                    Progress::Waiting => {
                        event!(tracing::Level::INFO, "connection aborted");
                    }
                    Progress::Polled => {
                        event!(tracing::Level::WARN, "connection panicked");
                    }
                    Progress::Ready => {}
                }
            }
        }
    }

    enum Progress {
        Waiting,
        /// The future is being polled. If that panics, the state stays this one.
        Polled,
        Ready,
    }

    impl<F> Serving<F> {
        pub(super) fn new(future: F) -> Self {
            Serving { future, progress: Progress::Waiting }
        }
    }

    impl<F: Future> Future for Serving<F> {
        type Output = F::Output;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            let this = self.project();
            *this.progress = Progress::Polled;
            let polled = this.future.poll(cx);
            *this.progress = if polled.is_ready() { Progress::Ready } else { Progress::Waiting };
            polled
        }
    }
}
