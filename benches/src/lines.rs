//! Lines of 32 bytes on average, and the peers that read them.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::codec::{AnyDelimiterCodec, FramedRead, LinesCodec};

use crate::input::{self, Shape};
use crate::io::{READ, Reader, complete, drain};
use crate::{Row, Tally};

/// Lines, and the checksum that competitors have to return for them.
#[derive(Debug)]
pub struct Lines {
    pub input: Vec<u8>,
    pub count: usize,
    pub checksum: u64,
}

impl Lines {
    pub fn new(size: usize, end: &[u8], shape: Shape) -> Lines {
        let input = input::lines(size, end, shape);
        let (mut count, mut tally) = (0, Tally::default());
        for line in input.split_inclusive(|&b| b == b'\n') {
            tally.frame(&line[..line.len() - end.len()]);
            count += 1;
        }
        Lines { input, count, checksum: tally.sum() }
    }

    pub fn work<'a>(&self, row: Row<'a>) -> Row<'a> {
        row.work(self.count, "line", self.input.len()).expect(self.checksum)
    }
}

/// Makes a `String` of each line, checks that it is UTF-8, and takes a carriage return off its end.
pub fn lines_codec(reader: Reader<'_>, capacity: usize) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, LinesCodec::new(), capacity), |line| {
        tally.frame(line.expect("well-formed").as_bytes())
    });
    tally.sum()
}

/// Makes a `Bytes` of each line. The peer could look for any of several bytes; here the set has one.
pub fn any_delimiter_codec(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    let codec = AnyDelimiterCodec::new(b"\n".to_vec(), b"\n".to_vec());
    drain(FramedRead::with_capacity(reader, codec, READ), |line| {
        tally.frame(&line.expect("well-formed"));
    });
    tally.sum()
}

/// Copies each line into one buffer that is used for all. `end` is the length of the line end, which is taken off.
pub fn read_until(reader: Reader<'_>, end: usize) -> u64 {
    let mut tally = Tally::default();
    let mut reader = BufReader::with_capacity(READ, reader);
    let mut line = Vec::new();
    complete(async {
        while reader.read_until(b'\n', &mut line).await.expect("memory") > 0 {
            tally.frame(&line[..line.len() - end]);
            line.clear();
        }
    });
    tally.sum()
}
