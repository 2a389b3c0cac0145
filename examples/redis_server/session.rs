//! One client: where its commands end, their answers, limits, deadlines.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynchat::{
    Channel, ChannelBuilder, Chunk, Control, Handler, Limit, Served, Server, Terminator, Timeouts,
};
use tokio::task::yield_now;
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;

use crate::commands::{Client, Command, Shared, Then, confirm_subscriptions, unknown};
use crate::protocol::{COMMAND, CROWDED_IN, Parser, Refusal, Reply, TOO_LONG};
use crate::proxy_protocol::{self, Accepted};
use crate::pubsub::Subscriptions;
use crate::waiting::{Held, SHORT};

const CONNECTIONS: usize = 10_000;
/// How long the answers to commands that have begun may take when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// A command has a minute, and one second more for each so many bytes.
const RATE: u32 = 64 << 10;
/// How many bytes of messages may wait for a subscriber, or one message, however long it is. While much waits for all
/// subscribers together, it is less: see `pubsub.rs`.
///
/// Messages wait until it is the turn of the subscriber's task. A client that publishes may read half a megabyte in one
/// turn, and publish all of that, and besides a message, however long, that had begun before; and several such clients
/// may have their turns before the subscriber. Redis allows as much for a minute.
const MESSAGES: usize = 8 << 20;
/// A client may be silent for so long, unless it is a subscriber.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// Serves clients, from wherever they connect, until it is told to stop.
pub(crate) async fn serve<L>(
    listener: L,
    stop: CancellationToken,
    proxied: bool,
) -> io::Result<Served>
where
    L: Listener<Io: Unpin + Send + 'static, Addr: fmt::Debug + Send + 'static>,
{
    let shared = Shared::default();
    let last = Arc::new(AtomicU64::new(0));
    let builder = channels();
    let server = Server::new().max_connections(CONNECTIONS).shutdown_timeout(GRACE);
    let served = server
        .serve(listener, stop, move |connection| {
            let id = last.fetch_add(1, Ordering::Relaxed) + 1;
            let (session, builder) = (Session::new(id, shared.clone()), builder.clone());
            async move {
                // A peer that is no proxy is disconnected without an answer.
                let accept = |io| proxy_protocol::accept(io, proxied);
                let connection = connection.handshake(proxy_protocol::DEADLINE, accept).await?;
                let Accepted { io, input, .. } = connection.io;
                let mut channel = builder.build_with_input(io, input);
                channel.run_until(session, connection.shutdown.cancelled()).await;
                Ok::<_, io::Error>(())
            }
        })
        .await;
    Ok(served?)
}

/// The settings of all channels.
pub(crate) fn channels() -> ChannelBuilder {
    Channel::builder(Terminator::None)
        .own_end(true)
        .limit(Limit::Fail(COMMAND as u64))
        .handle_capacity(MESSAGES)
        .timeouts(timeouts(Some(IDLE)))
}

fn timeouts(idle: Option<Duration>) -> Timeouts {
    Timeouts::default().idle(idle).min_rate(RATE)
}

#[derive(Debug)]
pub(crate) struct Session {
    parser: Parser,
    client: Client,
    /// Counts the bytes that have come of a command that is not complete, if they are not short.
    begun: Held,
    /// Whether others are to have their turn before the next command.
    gives_way: bool,
}

impl Session {
    pub(crate) fn new(id: u64, shared: Shared) -> Self {
        let begun = shared.begun.hold_nothing();
        let (parser, client) = (Parser::default(), Client::new(id, shared));
        Session { parser, client, begun, gives_way: false }
    }

    /// Counts the `length` bytes that have come of a command that is not complete. Closes if there are too many.
    #[cold]
    fn count_begun(&mut self, length: usize, control: &mut Control<'_>) {
        let more = (length + self.parser.noted()).saturating_sub(self.begun.size());
        if more > self.client.shared.begun.room() {
            refuse(&CROWDED_IN, control);
            control.close_when_done();
        } else {
            self.begun.add(more);
        }
    }
}

impl Handler for Session {
    type Error = Infallible;

    fn find_end(
        &mut self,
        input: &[u8],
        control: &mut Control<'_>,
    ) -> Result<Option<usize>, Infallible> {
        let end = self.parser.find_end(input);
        if end.is_none() && input.len() > SHORT {
            self.count_begun(input.len(), control);
        }
        Ok(end)
    }

    /// A whole command. All commands that have come are answered before anything is written.
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        let Session { parser, client, begun, gives_way } = self;
        // The command is complete, so it no longer counts as one that is not.
        begun.clear();
        let words = match parser.take(&data) {
            Some(Ok(words)) if words.len() > 0 => words,
            // This is an empty line, or a command in whose middle the input ended.
            Some(Ok(_)) | None => return Ok(()),
            Some(Err(refusal)) => {
                refuse(&refusal, control);
                control.close_when_done();
                return Ok(());
            }
        };
        let was_subscribed = client.is_subscribed();
        let room = client.shared.answers.room();
        let done = control.try_push_with(|out| match Command::find(words.get(0)) {
            Some(command) => command.run(client, words, Reply::with_room(out, room)),
            None => unknown(&words),
        });
        let then = done.unwrap_or_else(|refusal| {
            // What the command had written is not sent.
            refuse(&refusal, control);
            None
        });
        match then {
            None | Some(Then::Go) => {}
            Some(Then::GiveWay) => *gives_way = true,
            Some(Then::Close) => control.close_when_done(),
            Some(Then::Abort) => control.abort(),
            Some(Then::SendLong(answer)) => control.push(client.shared.answers.count(answer)),
            Some(Then::SendValue(text)) => {
                control.push(client.shared.answers.count(text));
                control.push("\r\n");
            }
            Some(Then::Subscribe) => {
                let Client { id, shared, subscriptions, .. } = client;
                let subscriptions = subscriptions.get_or_insert_with(|| {
                    Subscriptions::new(shared.hub.clone(), *id, control.handle())
                });
                let long = control.push_with(|out| {
                    confirm_subscriptions(subscriptions, &words, Reply::with_room(out, room))
                });
                if let Some(answer) = long.flatten() {
                    control.push(shared.answers.count(answer));
                }
            }
        }
        if was_subscribed != client.is_subscribed() {
            let idle = if was_subscribed { Some(IDLE) } else { None };
            control.set_timeouts(timeouts(idle));
        }
        Ok(())
    }

    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.parser.release();
        if mem::take(&mut self.gives_way) {
            yield_now().await;
        }
        Ok(())
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        refuse(&TOO_LONG, control);
        Ok(())
    }
}

/// Answers with an error.
fn refuse(refusal: &Refusal, control: &mut Control<'_>) {
    control.push_with(|out| Reply::new(out).error(refusal));
}
