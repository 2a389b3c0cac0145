//! An honest client that wants to be served during the attacks.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Sends a question again and again, and records how long the slowest answer took.
pub(super) struct Bystander {
    enough: Arc<AtomicBool>,
    asking: JoinHandle<io::Result<(usize, Duration)>>,
}

impl Bystander {
    /// Starts it: with `same` it keeps one connection, otherwise it opens one for each question.
    pub fn start(address: &str, same: bool) -> io::Result<Bystander> {
        let enough = Arc::new(AtomicBool::new(false));
        let (address, ended) = (address.to_owned(), enough.clone());
        let mut stream = TcpStream::connect(&address)?;
        let asking = thread::spawn(move || {
            let (mut asked, mut longest) = (0, Duration::ZERO);
            while !ended.load(Ordering::Relaxed) {
                let begun = Instant::now();
                if !same {
                    stream = TcpStream::connect(&address)?;
                }
                ping(&mut stream)?;
                (asked, longest) = (asked + 1, longest.max(begun.elapsed()));
                thread::sleep(Duration::from_millis(20));
            }
            Ok((asked, longest))
        });
        Ok(Bystander { enough, asking })
    }

    /// Stops it, and returns how often it asked and how long it waited at most.
    pub fn stop(self) -> io::Result<(usize, Duration)> {
        self.enough.store(true, Ordering::Relaxed);
        self.asking.join().expect("it does not panic")
    }
}

pub(super) fn ping(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"ping\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"pong\n");
    Ok(())
}
