//! Heads of HTTP requests, of some 400 bytes, each ended by a blank line; and the peers that find its end.

use memchr::memmem;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::input::{self, Shape};
use crate::io::{READ, Reader, Window, complete};
use crate::{Row, Tally};

/// What ends a head.
pub const END: &[u8; 4] = b"\r\n\r\n";

/// Heads, and the checksum that competitors have to return for them.
#[derive(Debug)]
pub struct Heads {
    pub input: Vec<u8>,
    pub count: usize,
    pub checksum: u64,
}

impl Heads {
    pub fn new(count: usize, shape: Shape) -> Heads {
        let input = input::heads(count, shape);
        let (mut tally, mut start) = (Tally::default(), 0);
        for end in memmem::find_iter(&input, END) {
            tally.frame(&input[start..end]);
            start = end + END.len();
        }
        Heads { input, count, checksum: tally.sum() }
    }

    pub fn work<'a>(&self, row: Row<'a>) -> Row<'a> {
        row.work(self.count, "head", self.input.len()).expect(self.checksum)
    }
}

/// Lends only whole heads: an incomplete one waits for the next read, and is then searched again.
pub fn find_iter(input: &[u8], window: &mut Window) -> u64 {
    let finder = memmem::Finder::new(END);
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        let (filled, mut start) = (window.filled(), 0);
        for end in finder.find_iter(filled) {
            tally.frame(&filled[start..end]);
            start = end + END.len();
        }
        window.consume(start);
    }
    tally.sum()
}

/// Copies line after line into one buffer, until a line is blank.
pub fn read_until(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    let mut reader = BufReader::with_capacity(READ, reader);
    let mut head = Vec::new();
    complete(async {
        while reader.read_until(b'\n', &mut head).await.expect("memory") > 0 {
            if head.ends_with(END) {
                tally.frame(&head[..head.len() - END.len()]);
                head.clear();
            }
        }
    });
    tally.sum()
}
