//! The inputs. They are random, but the same in every run.

/// A small random number generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that yields the same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// A letter or a digit, or one of a few more printable characters.
    pub fn letter(&mut self) -> u8 {
        b'0' + (self.number() % 64) as u8
    }

    /// Adds `n` letters to `out`.
    pub fn letters(&mut self, n: usize, out: &mut Vec<u8>) {
        out.reserve(n);
        for _ in 0..n {
            let letter = self.letter();
            out.push(letter);
        }
    }

    /// Brings `items` into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Whether frames resemble one another, as those of one client do. How well a processor predicts where the next one
/// ends depends on it, and therefore which competitor is faster: each has inputs that suit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Alike,
    Random,
}

impl Shape {
    /// Both shapes, and what they are called in the name of a row.
    pub const BOTH: [(Shape, &str); 2] = [(Shape::Random, "random"), (Shape::Alike, "alike")];
}

/// At least `size` bytes of lines, each ended by `end`: of 32 letters, or of 0 to 64.
pub fn lines(size: usize, end: &[u8], shape: Shape) -> Vec<u8> {
    let mut random = Random::new(2);
    let mut lines = Vec::with_capacity(size + 128);
    while lines.len() < size {
        let n = match shape {
            Shape::Alike => 32,
            Shape::Random => random.below(65),
        };
        random.letters(n, &mut lines);
        lines.extend_from_slice(end);
    }
    lines
}

/// `n` pipelined RESP commands that set a key of 16 bytes to a value of 32, or one of 8 to 24 to one of
/// 0 to 64.
pub fn sets(n: usize, shape: Shape) -> Vec<u8> {
    let mut random = Random::new(3);
    let mut sets = Vec::new();
    for _ in 0..n {
        let (key, value) = match shape {
            Shape::Alike => (16, 32),
            Shape::Random => (8 + random.below(17), random.below(65)),
        };
        sets.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n${key}\r\n").as_bytes());
        random.letters(key, &mut sets);
        sets.extend_from_slice(format!("\r\n${value}\r\n").as_bytes());
        random.letters(value, &mut sets);
        sets.extend_from_slice(b"\r\n");
    }
    sets
}

/// `n` heads of HTTP requests, of about 400 bytes each: those of one client, which asks for one thing
/// after the other, or heads with any fields.
pub fn heads(n: usize, shape: Shape) -> Vec<u8> {
    let mut random = Random::new(4);
    let mut heads = Vec::new();
    for i in 0..n {
        match shape {
            Shape::Alike => heads.extend_from_slice(
                format!(
                    "GET /articles/{i:06} HTTP/1.1\r\n\
                     Host: www.example.org\r\n\
                     User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
                     Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
                     Accept-Language: en-GB,en;q=0.5\r\n\
                     Accept-Encoding: gzip, deflate, br\r\n\
                     Referer: https://www.example.org/articles\r\n\
                     Connection: keep-alive\r\n\
                     Cookie: session=8d4bfa2f30\r\n\r\n"
                )
                .as_bytes(),
            ),
            Shape::Random => random_head(&mut random, &mut heads),
        }
    }
    heads
}

fn random_head(random: &mut Random, heads: &mut Vec<u8>) {
    heads.extend_from_slice(b"GET /");
    let path = 10 + random.below(40);
    random.letters(path, heads);
    heads.extend_from_slice(b" HTTP/1.1\r\n");
    for _ in 0..5 + random.below(6) {
        let name = 4 + random.below(14);
        random.letters(name, heads);
        heads.extend_from_slice(b": ");
        let value = 5 + random.below(50);
        random.letters(value, heads);
        heads.extend_from_slice(b"\r\n");
    }
    heads.extend_from_slice(b"\r\n");
}

/// Bodies of `size` bytes and up to a page more, each after its length in four bytes, the highest
/// first. The sizes differ so that the bodies begin at different offsets in their pages: a copy is several times slower
/// if source and destination have similar offsets, which is by chance and says nothing about a competitor.
///
/// # Panics
///
/// Panics if a size needs more than four bytes.
pub fn bodies(count: usize, size: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    let body = |_| {
        let size = size + random.below(4096);
        let length = u32::try_from(size).expect("a size of at most four bytes");
        let mut body = length.to_be_bytes().to_vec();
        random.letters(size, &mut body);
        body
    };
    (0..count).map(body).collect()
}
