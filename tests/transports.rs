//! The codecs in `Framed` and `FramedRead`, over real and scripted transports.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use asynchat::{
    CodecError, Event, Frame, FrameCodec, FrameError, Limit, ProducerSink, Terminator,
    TerminatorCodec, producer,
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt};
use support::{Log, T, data, push};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_rustls::{client, server};
use tokio_util::codec::{
    BytesCodec, Decoder, Encoder, Framed, FramedParts, FramedRead, FramedWrite,
};

/// Collects all events until the end of the stream.
async fn collect<S>(mut stream: S) -> Vec<Log>
where
    S: futures::Stream<Item = Result<Event<Bytes>, CodecError>> + Unpin,
{
    let mut log = Vec::new();
    while let Some(event) = stream.next().await {
        write_down(&mut log, event.unwrap());
    }
    log
}

fn write_down(log: &mut Vec<Log>, event: Event<Bytes>) {
    push(
        log,
        match event {
            Event::Chunk(bytes) => data(bytes),
            Event::Terminator => T,
            Event::Overlong | Event::WrongEnd => Log::Overlong,
            Event::Truncated => Log::Truncated,
        },
    );
}

/// A conversation in which the terminator changes: each line has the length of the body that follows it.
async fn converse<A, B>(client: A, server: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let bodies = [&b"hello\r\n"[..], b"", b"\0\xff\r", &[b'x'; 20_000]];
    let client = async {
        let mut framed = Framed::new(client, TerminatorCodec::new(b"\r\n"));
        for body in bodies {
            framed.feed(format!("{}\r\n", body.len())).await.unwrap();
            framed.feed(body).await.unwrap();
        }
        SinkExt::<&[u8]>::flush(&mut framed).await.unwrap();
        framed.get_mut().shutdown().await.unwrap();
        collect(framed).await
    };
    let server = async {
        let mut framed = Framed::new(server, TerminatorCodec::new(b"\r\n"));
        let (mut head, mut body, mut in_body) = (Vec::new(), Vec::new(), false);
        let mut bodies = Vec::new();
        while let Some(event) = framed.next().await {
            match event.unwrap() {
                Event::Chunk(bytes) if in_body => body.extend_from_slice(&bytes),
                Event::Chunk(bytes) => head.extend_from_slice(&bytes),
                Event::Terminator if in_body => {
                    bodies.push(std::mem::take(&mut body));
                    in_body = false;
                    framed.codec_mut().set_terminator(b"\r\n");
                }
                Event::Terminator => {
                    let len: u64 =
                        String::from_utf8(std::mem::take(&mut head)).unwrap().parse().unwrap();
                    in_body = true;
                    framed.codec_mut().set_terminator(len);
                }
                other => panic!("{other:?}"),
            }
        }
        framed.send(format!("{} bodies\r\nbye", bodies.len())).await.unwrap();
        framed.get_mut().shutdown().await.unwrap();
        bodies
    };
    let (log, received) = tokio::join!(client, server);
    assert_eq!(received, bodies);
    assert_eq!(log, [data("4 bodies"), T, data("bye"), Log::Truncated]);
}

#[tokio::test]
async fn a_conversation_over_duplex() {
    for room in [1, 7, 64, 100_000] {
        let (client, server) = tokio::io::duplex(room);
        converse(client, server).await;
    }
}

#[tokio::test]
async fn a_conversation_over_tcp() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    converse(client.unwrap(), accepted.unwrap().0).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_conversation_over_a_unix_socket() {
    let (client, server) = tokio::net::UnixStream::pair().unwrap();
    converse(client, server).await;
}

#[tokio::test]
async fn a_conversation_over_tls() {
    let (client, server) = tls(4096).await;
    converse(client, server).await;
}

/// The socket is full for a moment, so that the end of a TLS record stays in the TLS session. The producer has more
/// only when the peer has read all of it.
#[tokio::test]
async fn nothing_stays_in_a_tls_session_while_a_producer_waits() {
    let (mut client, server) = tls(8 * 1024).await;
    let mut sink = ProducerSink::new(FramedWrite::new(server, BytesCodec::new()));
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let answers = producer::poll_fn(move |cx| receiver.poll_recv(cx).map(|item| item.map(Ok)));
    sink.push_with_producer(answers).unwrap();
    sender.send(Bytes::from(vec![b'x'; 30 * 1024])).await.unwrap();
    let peer = async {
        let mut received = vec![0; 30 * 1024];
        client.read_exact(&mut received).await.unwrap();
        drop(sender);
        received
    };
    let both = async { tokio::join!(sink.flush(), peer) };
    let (flushed, received) = tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
    flushed.unwrap();
    assert!(received.iter().all(|byte| *byte == b'x'));
}

async fn tls(room: usize) -> (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>) {
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(default_provider());
    let server_config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client_config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let (client, server) = tokio::io::duplex(room);
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(client_config));
    let acceptor = TlsAcceptor::from(Arc::new(server_config));
    let (client, server) = tokio::join!(connector.connect(name, client), acceptor.accept(server));
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn the_halves_of_a_framed_work_split() {
    let (mut client, server) = tokio::io::duplex(64);
    let (mut sink, stream) = Framed::new(server, TerminatorCodec::new(b"\n")).split();
    client.write_all(b"a\nb").await.unwrap();
    sink.send(Bytes::from_static(b"answer\n")).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(collect(stream).await, [data("a"), T, data("b"), Log::Truncated]);
}

/// After a handshake another codec takes over, and no byte in between is lost.
#[tokio::test]
async fn map_codec_hands_on_what_is_buffered_and_withheld() {
    for together in ["HELO\r\nBODY\r\nrest", "HELO\r\n\rx\r\n", "HELO\r\n", "HELO\r\n\r"] {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(together.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut framed = Framed::new(server, FrameCodec::crlf());
        let first = framed.next().await.unwrap().unwrap();
        assert_eq!(first, Frame::Complete("HELO".into()));
        let mapped = framed.map_codec(|_| TerminatorCodec::new(None));
        let log = collect(mapped).await;
        let rest = &together[6..];
        assert_eq!(log, if rest.is_empty() { vec![] } else { vec![data(rest)] }, "{together:?}");
    }
    let (mut client, server) = tokio::io::duplex(64);
    client.write_all(b"a\nb;c").await.unwrap();
    let mut framed = FramedRead::new(server, TerminatorCodec::new(b"\n"));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("a".into()));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);
    let mut framed = framed.map_decoder(|mut codec| {
        codec.set_terminator(b";");
        codec
    });
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("b".into()));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);
    assert_eq!(framed.read_buffer(), &b"c"[..]);
}

#[tokio::test]
async fn into_parts_at_any_event_loses_no_byte() {
    let input = b"ab\r\ncd\r\r\n\r\nefghijkl\r\nx\r";
    for limit in [Limit::Unlimited, Limit::Skip(3)] {
        for stop in 0..12 {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(input).await.unwrap();
            let codec = TerminatorCodec::new(b"\r\n").with_limit(limit);
            let mut framed = Framed::new(server, codec);
            let mut log = Vec::new();
            for _ in 0..stop {
                let Some(Some(event)) = framed.next().now_or_never() else { break };
                write_down(&mut log, event.unwrap());
            }
            client.shutdown().await.unwrap();
            // The `Framed` is taken apart, and another one is made of its parts.
            let old = framed.into_parts();
            let mut parts = FramedParts::new::<Bytes>(old.io, old.codec);
            parts.read_buf = old.read_buf;
            let mut framed = Framed::from_parts(parts);
            while let Some(event) = framed.next().await {
                write_down(&mut log, event.unwrap());
            }
            let long = match limit {
                Limit::Unlimited => vec![data("efghijkl"), T],
                _ => vec![data("efg"), Log::Overlong],
            };
            let head = [data("ab"), T, data("cd\r"), T, T];
            let expected = [&head[..], &long, &[data("x\r"), Log::Truncated]].concat();
            assert_eq!(log, expected, "taken apart after {stop}");
        }
    }
}

#[tokio::test]
async fn the_withheld_beginning_of_a_terminator_is_in_the_read_buffer() {
    let (mut client, server) = tokio::io::duplex(64);
    client.write_all(b"ab\r\n.").await.unwrap();
    let mut framed = Framed::new(server, TerminatorCodec::new(b"\r\n.\r\n"));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("ab".into()));
    assert!(framed.next().now_or_never().is_none());
    assert!(framed.codec().is_mid_frame());
    assert_eq!(framed.read_buffer(), &b"\r\n."[..]);
    assert_eq!(framed.into_parts().read_buf, &b"\r\n."[..]);
}

// Terminators that are set while no event is being decoded.

#[tokio::test]
async fn a_switch_after_pending_waits_for_the_next_read() {
    let cases = [
        (Terminator::from(b"\r"), vec![T, data("x")]),
        (Terminator::Count(0), vec![T, data("\rx")]),
        (Terminator::None, vec![data("\rx")]),
    ];
    for (terminator, expected) in cases {
        let (io, mut peer) = tokio_test::io::Builder::new().read(b"ab\r").build_with_handle();
        let framed = FramedRead::new(io, TerminatorCodec::new(b"\r\n"));
        let mut framed = tokio_test::task::spawn(framed);
        assert!(matches!(framed.poll_next(), Poll::Ready(Some(Ok(Event::Chunk(_))))));
        assert!(framed.poll_next().is_pending());
        framed.decoder_mut().set_terminator(terminator);
        assert!(framed.poll_next().is_pending(), "it does not look at its buffer");
        peer.read(b"x");
        assert!(framed.is_woken());
        let mut log = Vec::new();
        while let Poll::Ready(Some(event)) = framed.poll_next() {
            write_down(&mut log, event.unwrap());
        }
        assert_eq!(log, expected);
    }
}

#[tokio::test]
async fn taking_a_framed_apart_and_putting_it_together_makes_it_look() {
    let cases: [(Terminator, &[Log]); 3] = [
        (Terminator::from(b"\r"), &[T]),
        (Terminator::Count(0), &[T, Log::Data(vec![b'\r'])]),
        (Terminator::None, &[Log::Data(vec![b'\r'])]),
    ];
    for (terminator, expected) in cases {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"ab\r").await.unwrap();
        let mut framed = Framed::new(server, TerminatorCodec::new(b"\r\n"));
        assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("ab".into()));
        assert!(framed.next().now_or_never().is_none());
        let mut old = framed.into_parts();
        old.codec.set_terminator(terminator);
        let mut parts = FramedParts::new::<Bytes>(old.io, old.codec);
        parts.read_buf = old.read_buf;
        parts.write_buf = old.write_buf;
        let mut framed = Framed::from_parts(parts);
        let mut log = Vec::new();
        while let Some(Some(event)) = framed.next().now_or_never() {
            write_down(&mut log, event.unwrap());
        }
        assert_eq!(log, expected);
    }
}

#[tokio::test]
async fn a_switch_at_an_event_never_waits() {
    let (io, _peer) = tokio_test::io::Builder::new().read(b"a\r\n\r").build_with_handle();
    let mut framed = FramedRead::new(io, TerminatorCodec::new(b"\r\n"));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("a".into()));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);
    framed.decoder_mut().set_terminator(0);
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);
    framed.decoder_mut().set_terminator(b"\r");
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);
    framed.decoder_mut().set_terminator(0);
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);
    assert!(framed.next().now_or_never().is_none());
}

// Ends.

#[tokio::test]
async fn overlong_is_an_item_and_only_the_failure_ends_the_stream() {
    let io = tokio_test::io::Builder::new().read(b"abcdef\nxyz\n").build();
    let mut framed = FramedRead::new(io, TerminatorCodec::new(b"\n").with_limit(Limit::Fail(3)));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("abc".into()));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Overlong);
    let error = framed.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, CodecError::Frame(FrameError::Overlong(3))));
    // The message does not repeat that of the source.
    assert_eq!(error.to_string(), "invalid frame");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "frame longer than the limit of 3 bytes");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::InvalidData);
    assert!(framed.next().await.is_none());

    let io = tokio_test::io::Builder::new().read(b"abcdef\nxyz\n").build();
    let codec = TerminatorCodec::new(b"\n").with_limit(Limit::Skip(3));
    let log = collect(FramedRead::new(io, codec)).await;
    assert_eq!(log, [data("abc"), Log::Overlong, data("xyz"), T]);
}

#[tokio::test]
async fn an_error_of_the_transport_is_passed_on() {
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let io = tokio_test::io::Builder::new().read(b"ab").read_error(error).build();
    let mut framed = FramedRead::new(io, TerminatorCodec::new(b"\n"));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("ab".into()));
    let error = framed.next().await.unwrap().unwrap_err();
    assert!(
        matches!(&error, CodecError::Io(io) if io.kind() == std::io::ErrorKind::ConnectionReset)
    );
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::ConnectionReset);
}

/// On a terminal, input can come after an end of the input.
#[tokio::test]
async fn a_stream_may_go_on_after_its_end() {
    struct Terminal(Vec<&'static [u8]>);
    impl AsyncRead for Terminal {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            room.put_slice(self.0.pop().unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    }
    for delimiter in ["\r\n", "\r\n456789012345678901234567890"] {
        let reads = vec![&b""[..], b"c\r\n", b"", b"ab\r"];
        let codec = TerminatorCodec::new(Terminator::try_from(delimiter).unwrap());
        let mut framed = FramedRead::new(Terminal(reads), codec);
        let mut log = Vec::new();
        for _ in 0..2 {
            while let Some(event) = framed.next().await {
                write_down(&mut log, event.unwrap());
            }
        }
        let second = if delimiter.len() == 2 {
            vec![data("c"), T]
        } else {
            vec![data("c\r\n"), Log::Truncated]
        };
        let first = vec![data("ab\r"), Log::Truncated];
        assert_eq!(log, [first, second].concat());
    }
}

// Memory.

/// A stream of so many bytes without a terminator.
struct Flood {
    left: usize,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let len = room.remaining().min(self.left);
        // Any bytes will do of which few can be withheld as the beginning of a terminator.
        room.initialize_unfilled_to(len).fill(b'\r');
        room.advance(len);
        self.left -= len;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_frame_of_100_mb_takes_a_bounded_buffer() {
    const SIZE: usize = 100_000_000;
    for terminator in [Terminator::from(b"\r\n"), Terminator::Count(u64::MAX), Terminator::None] {
        let mut framed =
            FramedRead::new(Flood { left: SIZE }, TerminatorCodec::new(terminator.clone()));
        let mut delivered = 0;
        while let Some(event) = framed.next().await {
            if let Event::Chunk(bytes) = event.unwrap() {
                delivered += bytes.len();
            }
            assert!(framed.read_buffer().capacity() <= 64 * 1024, "{terminator:?}");
        }
        assert_eq!(delivered, SIZE);
    }
    // Frames that are skipped do not take memory, either.
    let codec = TerminatorCodec::new(b"\r\n").with_limit(Limit::Skip(10));
    let mut framed = FramedRead::new(Flood { left: SIZE / 4 }, codec);
    while let Some(event) = framed.next().await {
        event.unwrap();
        assert!(framed.read_buffer().capacity() <= 64 * 1024);
    }
}

#[test]
fn room_is_made_before_more_is_wanted() {
    let mut codec = TerminatorCodec::new(b"\r\n");
    let mut buffer = BytesMut::with_capacity(16);
    buffer.extend_from_slice(b"0123456789abcde\r");
    assert!(codec.decode(&mut buffer).unwrap().is_some());
    assert_eq!(codec.decode(&mut buffer).unwrap(), None);
    assert!(buffer.capacity() - buffer.len() >= 1024);
    // At the end of the input no room is made for more.
    let mut buffer = BytesMut::new();
    assert_eq!(codec.decode_eof(&mut BytesMut::new()).unwrap(), Some(Event::Truncated));
    assert_eq!(codec.decode_eof(&mut buffer).unwrap(), None);
    assert_eq!(buffer.capacity(), 0);
}

// Writing.

#[tokio::test]
async fn anything_that_is_bytes_is_written_as_it_is() {
    let mut framed = FramedWrite::new(Vec::new(), TerminatorCodec::new(b"\r\n"));
    framed.send("text ").await.unwrap();
    framed.send(String::from("string ")).await.unwrap();
    framed.send(&b"slice "[..]).await.unwrap();
    framed.send(b"array ").await.unwrap();
    framed.send(vec![b'v', b' ']).await.unwrap();
    framed.send(Bytes::from_static(b"bytes ")).await.unwrap();
    framed.send(BytesMut::from("more\r\n")).await.unwrap();
    assert_eq!(framed.get_ref(), b"text string slice array v bytes more\r\n");
    let mut out = BytesMut::from("<");
    TerminatorCodec::new(3).encode("", &mut out).unwrap();
    assert_eq!(out, "<");
}

#[tokio::test]
async fn whole_frames_go_over_a_transport_and_back() {
    let (client, server) = tokio::io::duplex(16);
    let mut client = Framed::new(client, FrameCodec::crlf());
    let mut server = Framed::new(server, FrameCodec::crlf().batched());
    let write = async {
        for line in ["one", "", "a line longer than the pipe"] {
            client.send(line).await.unwrap();
        }
        assert!(matches!(client.send("a\r\nb").await, Err(CodecError::Injection)));
        SinkExt::<&[u8]>::close(&mut client).await.unwrap();
    };
    let read = async {
        let mut lines = Vec::new();
        while let Some(item) = server.next().await {
            match item.unwrap() {
                Frame::Complete(batch) => lines.extend(batch.iter().map(<[u8]>::to_vec)),
                other => panic!("{other:?}"),
            }
        }
        lines
    };
    let ((), lines) = tokio::join!(write, read);
    assert_eq!(lines, [&b"one"[..], b"", b"a line longer than the pipe"]);
    let mut rest = Vec::new();
    client.into_inner().read_to_end(&mut rest).now_or_never();
    assert_eq!(rest, b"");
}
