//! Messages between two processes over TCP: a length, a CRC-32, and so many bytes. Numbers are little-endian.

use super::lost::{How, Lost, Peer};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Most bytes of a message.
pub(crate) const MOST: usize = 1 << 20;

/// A connection to a process that has said who it is.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Who is at the other end.
    pub peer: Peer,
}

impl Wire {
    /// A peer that says nothing for `silence`, or takes nothing, is given up.
    ///
    /// # Errors
    /// A socket that does not take its settings.
    pub(crate) fn new(stream: TcpStream, peer: Peer, silence: Duration) -> Result<Self, Lost> {
        let wire = Self { stream, peer };
        wire.set(silence).map_err(|e| wire.lost(How::Failed(e.to_string())))?;
        Ok(wire)
    }

    fn set(&self, silence: Duration) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(silence))?;
        self.wait_at_most(silence)
    }

    /// How long from now on the peer may be silent.
    ///
    /// # Errors
    /// A socket that does not take it.
    pub(crate) fn wait_at_most(&self, silence: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(silence.max(Duration::from_millis(1))))
    }

    /// Another handle of the same connection, to listen while the first one speaks.
    ///
    /// # Errors
    /// No further descriptor.
    pub(crate) fn twin(&self) -> Result<Self, Lost> {
        let stream = self.stream.try_clone().map_err(|e| self.lost(How::Failed(e.to_string())))?;
        Ok(Self { stream, peer: self.peer })
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends the connection for both handles.
    pub(crate) fn hang_up(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// That the peer is of no further use.
    pub(crate) fn lost(&self, how: How) -> Lost {
        Lost { peer: self.peer, how }
    }

    /// # Errors
    /// A peer that is gone or does not listen.
    pub(crate) fn send(&self, payload: &[u8]) -> Result<(), Lost> {
        let mut frame = Vec::with_capacity(8 + payload.len());
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        frame.extend_from_slice(payload);
        (&self.stream).write_all(&frame).map_err(|e| self.lost(how(&e, How::Deaf)))
    }

    /// The next message, in place of what `into` held.
    ///
    /// # Errors
    /// A peer that is gone, is silent for too long, or says what is none.
    pub(crate) fn receive(&self, into: &mut Vec<u8>) -> Result<(), Lost> {
        let mut head = [0; 8];
        self.read(&mut head)?;
        let [a, b, c, d, sum @ ..] = head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > MOST {
            return Err(self.lost(How::Wrong("said something that is no message".into())));
        }
        into.resize(len, 0);
        self.read(into)?;
        if crc32fast::hash(into).to_le_bytes() != sum {
            return Err(self.lost(How::Wrong("said something whose checksum is another".into())));
        }
        Ok(())
    }

    fn read(&self, to: &mut [u8]) -> Result<(), Lost> {
        (&self.stream).read_exact(to).map_err(|e| self.lost(how(&e, How::Silent)))
    }
}

fn how(error: &io::Error, late: How) -> How {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => late,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => How::Gone,
        _ => How::Failed(format!("is not heard any more: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let other = listener.accept().unwrap().0;
        (Wire::new(stream, Peer::Rank(1), Duration::from_millis(200)).unwrap(), other)
    }

    #[test]
    fn messages_of_any_length_come_as_they_were_sent() {
        let (a, b) = pair();
        let b = Wire::new(b, Peer::Rank(0), Duration::from_secs(5)).unwrap();
        let mut heard = vec![7; 3];
        for len in [0, 1, 1000, 100_000] {
            let message: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            a.send(&message).unwrap();
            b.receive(&mut heard).unwrap();
            assert_eq!(heard, message);
        }
    }

    #[test]
    fn what_ends_a_connection_is_said_with_the_name() {
        let heard = |bytes: &[u8], hang_up: bool| {
            let (wire, mut other) = pair();
            other.write_all(bytes).unwrap();
            let kept = (!hang_up).then_some(other);
            let error = wire.receive(&mut Vec::new()).unwrap_err().to_string();
            drop(kept);
            error
        };
        assert_eq!(heard(b"", true), "rank 1 is gone");
        assert_eq!(heard(b"abc", true), "rank 1 is gone");
        assert_eq!(heard(b"", false), "rank 1 fell silent");
        assert_eq!(heard(&[255; 8], false), "rank 1 said something that is no message");
        assert_eq!(heard(&[1, 0, 0, 0, 9, 9, 9, 9, 1], false), "rank 1 said something whose checksum is another");
    }

    /// `cargo test --release --lib loopback -- --ignored --nocapture`: what telling another process of a step and hearing of it costs.
    #[test]
    #[ignore = "a measurement"]
    fn a_round_trip_on_loopback() {
        let (a, b) = pair();
        let b = Wire::new(b, Peer::Rank(0), Duration::from_secs(5)).unwrap();
        let rounds = 20_000;
        let other = std::thread::spawn(move || {
            let mut heard = Vec::new();
            for _ in 0..rounds {
                b.receive(&mut heard).unwrap();
                b.send(&[0; 40]).unwrap();
            }
        });
        let (begun, mut heard) = (std::time::Instant::now(), Vec::new());
        for _ in 0..rounds {
            a.send(b"g").unwrap();
            a.receive(&mut heard).unwrap();
        }
        println!("{:.1} us a round trip", begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
        other.join().unwrap();
    }
}
