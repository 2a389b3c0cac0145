//! Tests of `verify` itself: it accepts correct decoders, handlers and clients, and finds each kind of mistake.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use asynchat::verify::{Delivery, Verifier};

/// The message with which a verifier panics.
#[track_caller]
fn complaint(verify: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(verify)).expect_err("something is wrong with this");
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast::<&str>().unwrap().to_string(),
    }
}

fn joined(delivery: &Delivery) -> Vec<u8> {
    delivery.reads().flatten().copied().collect()
}

#[test]
fn each_way_is_delivered_with_and_without_an_end_and_other_bytes() {
    let mut seen = Vec::new();
    let whole = Verifier::new().trailing("xy").check(b"abcd", |delivery| {
        seen.push(delivery.clone());
        (delivery.ends(), joined(delivery))
    });
    assert_eq!(whole, (true, b"abcd".to_vec()));
    for input in [&b"abcd"[..], b"abcdxy"] {
        for ends in [true, false] {
            let ways: Vec<Vec<&[u8]>> = seen
                .iter()
                .filter(|way| way.ends() == ends && way.input() == input)
                .map(|way| way.reads().collect())
                .collect();
            assert_eq!(ways[0], [input], "the whole comes first");
            assert!(ways.contains(&input.chunks(1).collect()));
            for at in 1..=4.min(input.len() - 1) {
                assert!(ways.contains(&vec![&input[..at], &input[at..]]), "{at}");
                for next in at + 1..input.len() {
                    let way = vec![&input[..at], &input[at..next], &input[next..]];
                    assert!(ways.contains(&way) || input != b"abcd", "{at} {next}");
                }
            }
        }
    }
}

#[test]
fn runs_repeat_and_another_seed_gives_others() {
    let random = |seed: u64| {
        let verifier = Verifier::new().two_reads_up_to(0).three_reads_up_to(0).seed(seed);
        verifier.deliveries(&[b'x'; 300]).collect::<Vec<_>>()
    };
    assert_eq!(random(1), random(1));
    assert_ne!(random(1), random(2));
    assert!(random(1).iter().any(|way| way.reads().any(<[u8]>::is_empty)));
}

#[test]
fn an_outcome_that_depends_on_one_cut_is_found_and_can_be_replayed() {
    // This decoder is wrong only for two reads, the second of which begins with "\n".
    let broken = |delivery: &Delivery| {
        let reads: Vec<_> = delivery.reads().collect();
        !(reads.len() == 2 && reads[1].starts_with(b"\n"))
    };
    let message = complaint(|| {
        Verifier::new().check(b"ab\r\ncd", broken);
    });
    for part in [
        r#"b"ab\r", b"\ncd", then the end"#,
        "gave false",
        "wanted true",
        "Verifier::replay_cuts([3])",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let again = complaint(|| {
        Verifier::new().replay_cuts([3]).check(b"ab\r\ncd", broken);
    });
    assert_eq!(again, message);
    Verifier::new().replay_cuts([2]).check(b"ab\r\ncd", broken);
}

#[test]
fn an_outcome_that_depends_on_a_random_way_can_be_replayed() {
    let broken = |delivery: &Delivery| delivery.reads().filter(|read| read.len() == 7).count() < 3;
    let input = [b'x'; 200];
    let message = complaint(|| {
        Verifier::new().check(&input, broken);
    });
    let seed = message.split("Verifier::replay(0x").nth(1).unwrap();
    let seed = u64::from_str_radix(seed.split(')').next().unwrap(), 16).unwrap();
    let mut ways = 0;
    let again = complaint(|| {
        Verifier::new().replay(seed).check(&input, |delivery| {
            ways += 1;
            broken(delivery)
        });
    });
    assert_eq!(again, message);
    assert_eq!(ways, 2, "the whole, and this one");
}

#[test]
fn the_end_of_the_input_is_a_part_of_the_comparison() {
    for ends in [true, false] {
        let message = complaint(|| {
            Verifier::new()
                .check(b"abc", |delivery| delivery.ends() == ends && delivery.reads().count() == 3);
        });
        assert!(message.contains(if ends { "then the end" } else { "and no end" }), "{message}");
    }
}

#[test]
fn what_is_found_only_with_other_bytes_behind_is_found() {
    let broken = |delivery: &Delivery| {
        delivery.input() == b"ab!!" && delivery.reads().next() == Some(&b"ab"[..])
    };
    Verifier::new().check(b"ab", broken);
    complaint(|| {
        Verifier::new().trailing("!!").check(b"ab", broken);
    });
}

#[test]
fn an_empty_input_is_delivered() {
    let mut ways = 0;
    Verifier::new().check(b"", |delivery| {
        ways += 1;
        assert_eq!(joined(delivery), delivery.input());
    });
    assert!(ways >= 2);
}

#[test]
fn a_panic_of_the_code_under_test_goes_through() {
    let message = complaint(|| {
        Verifier::new().check(b"ab", |delivery| assert!(delivery.is_whole(), "not whole"));
    });
    assert_eq!(message, "not whole");
}

#[test]
fn the_message_shows_long_inputs_in_part() {
    let input = vec![b'x'; 100_000];
    let message = complaint(|| {
        Verifier::new().check(&input, |delivery| delivery.reads().count() == 1);
    });
    assert!(message.len() < 5_000, "{}", message.len());
}

#[cfg(feature = "tokio")]
mod decoders {
    use std::io;

    use asynchat::verify::merge_chunks;
    use asynchat::{Event, FrameCodec, TerminatorCodec};
    use bytes::{Bytes, BytesMut};
    use tokio_util::codec::{
        AnyDelimiterCodec, BytesCodec, Decoder, LengthDelimitedCodec, LinesCodec,
    };

    use super::*;

    /// A decoder of lines that are cut by a closure.
    struct Lines<F>(F);

    impl<F: FnMut(&mut BytesMut, bool) -> Option<BytesMut>> Decoder for Lines<F> {
        type Item = Bytes;
        type Error = io::Error;

        fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Bytes>> {
            Ok((self.0)(src, false).map(BytesMut::freeze))
        }

        fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Bytes>> {
            Ok((self.0)(src, true).map(BytesMut::freeze))
        }
    }

    fn line(src: &mut BytesMut) -> Option<BytesMut> {
        let end = src.iter().position(|byte| *byte == b'\n')?;
        let line = src.split_to(end + 1);
        Some(line)
    }

    #[test]
    fn well_known_codecs_pass() {
        let verifier = Verifier::new();
        verifier.decoder(b"one\ntwo\r\n\nthree", LinesCodec::new);
        verifier.decoder(b"one;two,\n\nthree", AnyDelimiterCodec::default);
        let frames =
            verifier.decoder(b"\0\0\0\x02hi\0\0\0\0\0\0\0\x01!", LengthDelimitedCodec::new);
        assert_eq!(frames.items.len(), 3);
        let cut = verifier.decoder(b"\0\0\0\x02h", LengthDelimitedCodec::new);
        assert!(cut.error.unwrap().contains("bytes remaining on stream"));
        let bytes = verifier.merging_decoder(b"anything", BytesCodec::new, |last, next| {
            last.unsplit(next);
            None
        });
        assert_eq!(bytes.items, [&b"anything"[..]]);
    }

    #[test]
    fn our_codecs_pass() {
        let verifier = Verifier::new();
        let lines = verifier.decoder(b"one\ntwo\r\n\nthree", FrameCodec::crlf_or_lf);
        assert_eq!(lines.items.len(), 4);
        let events = verifier.merging_decoder(
            b"one\r\n\r\ntwo\r",
            || TerminatorCodec::new(b"\r\n"),
            merge_chunks,
        );
        assert_eq!(events.items.len(), 5);
        assert_eq!(events.items[0], Event::Chunk("one".into()));
    }

    #[test]
    fn a_decoder_that_takes_what_there_is_for_a_line_is_found() {
        let message = complaint(|| {
            Verifier::new().decoder(b"ab\n", || {
                Lines(|src: &mut BytesMut, _| (!src.is_empty()).then(|| src.split()))
            });
        });
        assert!(message.contains("depends on how the input is cut"), "{message}");
    }

    #[test]
    fn a_decoder_that_holds_items_back_until_the_next_read_is_found() {
        // This decoder returns only one line for each read.
        let message = complaint(|| {
            Verifier::new().decoder(b"a\nb\n", || {
                let mut before = 0;
                Lines(move |src: &mut BytesMut, eof| {
                    let more = eof || src.len() > before;
                    let line = more.then(|| line(src)).flatten();
                    before = src.len();
                    line
                })
            });
        });
        assert!(message.contains("and no end"), "{message}");
    }

    #[test]
    fn a_decoder_that_forgets_what_it_saw_of_a_delimiter_is_found() {
        // This decoder looks for "\r\n" only in bytes that it has not searched before.
        let message = complaint(|| {
            Verifier::new().decoder(b"ab\r\ncd\r\n", || {
                let mut searched = 0;
                Lines(move |src: &mut BytesMut, _| {
                    let found = src[searched..].windows(2).position(|two| two == b"\r\n");
                    match found {
                        Some(at) => Some(src.split_to(std::mem::take(&mut searched) + at + 2)),
                        None => {
                            searched = src.len();
                            None
                        }
                    }
                })
            });
        });
        assert!(message.contains("gave Decoded { items: [], error: None }"), "{message}");
    }

    #[test]
    fn an_error_that_depends_on_the_cut_is_found() {
        let parse = |limit: usize| {
            move |input: &[u8]| match input.iter().position(|byte| *byte == b'\n') {
                Some(at) => Ok(Some((at, at + 1))),
                // The mistake: the limit is compared with all that is buffered, and not with the line.
                None if input.len() > limit => Err("too long"),
                None => Ok(None),
            }
        };
        Verifier::new().parser(b"abcd\n", || parse(4));
        let message = complaint(|| {
            Verifier::new().parser(b"abcd\n", || parse(3));
        });
        assert!(message.contains("too long"), "{message}");
    }

    #[test]
    fn a_decoder_that_never_ends_is_found() {
        let message = complaint(|| {
            Verifier::new().decoder(b"ab\n", || Lines(|_: &mut BytesMut, _| Some(BytesMut::new())));
        });
        assert!(message.contains("no end"), "{message}");
    }

    #[test]
    fn a_parser_that_takes_more_than_there_is_is_found() {
        let message = complaint(|| {
            Verifier::new()
                .parser(b"ab", || |input: &[u8]| Ok::<_, ()>(Some(((), input.len() + 1))));
        });
        assert!(message.contains("a message of 3 bytes of 2"), "{message}");
    }
}

#[cfg(feature = "tokio")]
mod handlers {
    use std::convert::Infallible;
    use std::time::Duration;

    use asynchat::verify::Answered;
    use asynchat::{Channel, Chunk, Control, Handler};

    use super::*;

    /// A handler that answers each line with itself, with a mistake or a delay that a test chooses.
    #[derive(Default)]
    struct Echo {
        line: Vec<u8>,
        wrong: Option<Wrong>,
        sleeps: Option<Duration>,
        yields: usize,
        many: usize,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Wrong {
        /// It takes the last chunk for the whole line.
        Chunk,
        /// Its answer depends on the state of the connection, and not only on the input.
        Queued,
        /// It answers only at the end of the input.
        Late,
    }

    impl Handler for Echo {
        type Error = Infallible;

        fn collect_incoming_data(
            &mut self,
            data: Chunk<'_>,
            _: &mut Control<'_>,
        ) -> Result<(), Infallible> {
            if self.wrong == Some(Wrong::Chunk) {
                self.line.clear();
            }
            self.line.extend_from_slice(&data);
            Ok(())
        }

        async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
            if let Some(time) = self.sleeps {
                tokio::time::sleep(time).await;
            }
            for _ in 0..self.yields {
                tokio::task::yield_now().await;
            }
            if self.wrong == Some(Wrong::Queued) && control.queued_bytes() > 0 {
                control.push("more ");
            }
            self.line.push(b'\n');
            for _ in 0..1 + self.many {
                control.push(self.line.clone());
            }
            if self.line == b"quit\n" {
                control.close_when_done();
            }
            self.line.clear();
            Ok(())
        }

        async fn eof(&mut self, _: bool, control: &mut Control<'_>) -> Result<(), Infallible> {
            if self.wrong == Some(Wrong::Late) {
                control.push("end\n");
            }
            Ok(())
        }
    }

    async fn verify(input: &str, make: impl FnMut() -> Echo) -> Answered {
        let channel = Channel::builder(b"\r\n").high_water_mark(64).low_water_mark(8);
        Verifier::new().handler(&channel, input.as_bytes(), make).await
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    }

    #[track_caller]
    fn wrong(wrong: Wrong) -> String {
        complaint(|| {
            let make = || Echo { wrong: Some(wrong), ..Echo::default() };
            runtime().block_on(verify("ab\r\ncdef\r\n", make));
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_keeps_its_state_passes() {
        let answered = verify("ab\r\n\r\ncdef\r\ngh", Echo::default).await;
        assert_eq!(answered.output, b"ab\n\ncdef\n");
        assert_eq!(answered.closed.as_deref(), Some("Truncated"));
        let answered = verify("ab\r\nquit\r\nignored\r\n", Echo::default).await;
        assert_eq!(answered.output, b"ab\nquit\n");
        assert_eq!(answered.closed.as_deref(), Some("Done"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_waits_is_not_cancelled_in_a_callback() {
        let sleeps = Some(Duration::from_millis(3));
        let make = || Echo { sleeps, yields: 3, ..Echo::default() };
        assert_eq!(verify("ab\r\n\r\ncdef\r\n", make).await.output, b"ab\n\ncdef\n");
    }

    #[tokio::test(start_paused = true)]
    async fn output_far_above_the_high_water_mark_goes_out_whole() {
        let make = || Echo { many: 99, ..Echo::default() };
        let answered = verify("abcdefghijkl\r\nm\r\n", make).await;
        assert_eq!(answered.output.len(), 100 * 13 + 100 * 2);
    }

    #[tokio::test]
    async fn it_works_on_a_clock_that_runs() {
        let channel = Channel::builder(b"\r\n");
        let verifier = Verifier::new().patience(Duration::from_millis(2));
        let answered = verifier.handler(&channel, b"ab\r\ncd\r\n", Echo::default).await;
        assert_eq!(answered.output, b"ab\ncd\n");
    }

    #[test]
    fn a_handler_that_takes_a_chunk_for_a_line_is_found() {
        let message = wrong(Wrong::Chunk);
        assert!(message.contains("depends on how the input is cut"), "{message}");
        assert!(message.contains("replay"), "{message}");
    }

    #[test]
    fn a_handler_that_depends_on_the_time_of_its_input_is_found() {
        wrong(Wrong::Queued);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_answered_at_the_end_only_is_seen_to_be() {
        let make = || Echo { wrong: Some(Wrong::Late), ..Echo::default() };
        assert_eq!(verify("ab\r\n", make).await.output, b"ab\nend\n");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_handler_keeps_is_compared_too() {
        /// A handler that stores lines, or what it takes for lines.
        #[derive(Default)]
        struct Keeps(Vec<Vec<u8>>);

        impl Handler for Keeps {
            type Error = Infallible;

            fn collect_incoming_data(
                &mut self,
                data: Chunk<'_>,
                _: &mut Control<'_>,
            ) -> Result<(), Infallible> {
                self.0.push(data.to_vec());
                Ok(())
            }
        }

        let input = b"one\ntwo\n";
        let whole = Channel::builder(b"\n").whole_frames(true);
        let (answered, lines) =
            Verifier::new().handler_state(&whole, input, Keeps::default, |handler| handler.0).await;
        assert_eq!((answered.output.len(), &*lines), (0, &[b"one".to_vec(), b"two".to_vec()][..]));

        let pieces = Channel::builder(b"\n");
        let verified = tokio::spawn(async move {
            Verifier::new().handler_state(&pieces, input, Keeps::default, |handler| handler.0).await
        });
        let panic = verified.await.unwrap_err().into_panic();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("depends on how the input is cut"), "{message}");
    }
}

#[cfg(feature = "tokio")]
mod streams {
    use asynchat::Channel;
    use asynchat::verify::DeliveryStream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A client that reads two lines, which may come in one read or in several.
    async fn two_lines(stream: DeliveryStream) -> Vec<Vec<u8>> {
        let mut channel = Channel::builder(b"\r\n").whole_frames(true).build(stream);
        let mut lines = Vec::new();
        while lines.len() < 2 {
            channel.push("next\n").unwrap();
            channel.flush().await.unwrap();
            let Ok(Some((line, _))) = channel.step().await else { break };
            lines.push(line.payload.to_vec());
        }
        lines
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_of_a_stream_must_write_and_return_the_same() {
        let streamed = Verifier::new().stream(b"one\r\ntwo\r\n", two_lines).await;
        assert_eq!(streamed.output, b"next\nnext\n");
        assert_eq!(streamed.returned, Some(vec![b"one".to_vec(), b"two".to_vec()]));

        // A client that waits for ever is stopped, and has returned nothing.
        let waits = async |stream: DeliveryStream| {
            let _stream = stream;
            std::future::pending::<()>().await
        };
        assert_eq!(Verifier::new().stream(b"one", waits).await.returned, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_of_a_stream_that_takes_a_read_for_a_line_is_found() {
        async fn read(mut stream: DeliveryStream) -> Vec<u8> {
            let mut line = vec![0; 64];
            let read = stream.read(&mut line).await.unwrap();
            line.truncate(read);
            line
        }
        async fn answer_each(mut stream: DeliveryStream) {
            while stream.read(&mut [0; 64]).await.unwrap() > 0 {
                stream.write_all(b"x").await.unwrap();
            }
        }
        for verified in [
            tokio::spawn(async { drop(Verifier::new().stream(b"one\n", read).await) }),
            tokio::spawn(async { drop(Verifier::new().stream(b"one\n", answer_each).await) }),
        ] {
            let panic = verified.await.unwrap_err().into_panic();
            let message = panic.downcast_ref::<String>().unwrap();
            assert!(message.contains("depends on how the input is cut"), "{message}");
        }
    }
}
