//! How processes find one another: rank 0 listens, every other rank says who it is, and once all have come each is told that they
//! have. The connections stay.
//!
//! What is said: `centime1`, the key of the work, the number of processes, the rank, and a CRC-32 of all this; the answer is
//! `centime1`, whether it is an answer or a refusal, a length, so many bytes (of a refusal: why), and a CRC-32. Numbers are little-endian. Whoever says
//! anything else, says half of it, is of another world or comes twice, ends the meeting with an error on both sides; so does a
//! process that does not come in time. There is no secret in it: it belongs on a cluster's own network.

use super::world::World;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

const MAGIC: &[u8; 8] = b"centime1";
/// Most bytes of an answer.
const MOST: usize = 64 << 10;
/// How long a peer that is there may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two looks at who has come.
const LOOK: Duration = Duration::from_millis(5);

/// Why processes did not meet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RendezvousError {
    #[error("{host}:{port} is no address: {source}; check MASTER_ADDR")]
    NoAddress { host: String, port: u16, source: std::io::Error },
    #[error("listening on {at}: {source}; choose another MASTER_PORT")]
    Listening { at: SocketAddr, source: std::io::Error },
    #[error("{came} of {wanted} other processes came within {seconds} s; ranks {missing} are missing")]
    Missing { came: usize, wanted: usize, seconds: u64, missing: String },
    #[error("rank 0 was not reached at {host}:{port} within {seconds} s: {last}; is it running, and is the port open?")]
    Unreached { host: String, port: u16, seconds: u64, last: String },
    #[error("{peer} said something that is not centime's: {what}")]
    Foreign { peer: SocketAddr, what: String },
    #[error("{peer} does not belong here: {what}")]
    Wrong { peer: SocketAddr, what: String },
    #[error("rank 0 refuses: {0}")]
    Refused(String),
}

/// Where rank 0 of a world at `host` listens; port 0 takes one that is free.
///
/// # Errors
/// A name that is none; a port that is taken.
pub(crate) fn listen(host: &str, port: u16) -> Result<TcpListener, RendezvousError> {
    let found = addresses(host, port)?;
    // A node often knows its own name by an address that the others cannot reach.
    let at = match found {
        own if own.ip().is_loopback() && ["localhost", "127.0.0.1", "::1"].contains(&host) => own,
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
    };
    TcpListener::bind(at).map_err(|source| RendezvousError::Listening { at, source })
}

fn addresses(host: &str, port: u16) -> Result<SocketAddr, RendezvousError> {
    let no_address = |source| RendezvousError::NoAddress { host: host.into(), port, source };
    let mut found = (host, port).to_socket_addrs().map_err(no_address)?;
    found.next().ok_or_else(|| no_address(std::io::Error::from(ErrorKind::NotFound)))
}

/// Rank 0's part: the connections to all others, in the order of their ranks; `key` is the same for all that do the same work.
///
/// # Errors
/// [`RendezvousError`], within `patience`.
pub(crate) fn gathered(
    listener: &TcpListener,
    size: usize,
    key: u64,
    patience: Duration,
) -> Result<Vec<TcpStream>, RendezvousError> {
    let deadline = Instant::now() + patience;
    let mut peers: Vec<Option<TcpStream>> = (1..size).map(|_| None).collect();
    let met = gather(listener, &mut peers, key, patience, deadline);
    let answer = match &met {
        Ok(()) => answer(true, b""),
        Err(_) => answer(false, b"the meeting failed; see rank 0's message"),
    };
    for peer in peers.iter_mut().flatten() {
        // Who is gone meanwhile is missed by whoever next wants something of it.
        let _ = peer.write_all(&answer);
    }
    met.map(|()| peers.into_iter().flatten().collect())
}

/// Every other rank's part: the connection to rank 0.
///
/// # Errors
/// [`RendezvousError`], within `patience` and a little.
pub(crate) fn join(world: &World, key: u64, patience: Duration) -> Result<TcpStream, RendezvousError> {
    let World { host, port, .. } = world;
    let no_address = |source| RendezvousError::NoAddress { host: host.clone(), port: *port, source };
    let found: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs().map_err(no_address)?.collect();
    ask(world, &found, key, patience)
}

fn gather(
    listener: &TcpListener,
    peers: &mut [Option<TcpStream>],
    key: u64,
    patience: Duration,
    deadline: Instant,
) -> Result<(), RendezvousError> {
    let _ = listener.set_nonblocking(true);
    while peers.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((mut stream, peer)) => {
                let said = admit(&mut stream, peer, peers, key, deadline);
                let rank = said.inspect_err(|e| drop(stream.write_all(&answer(false, e.to_string().as_bytes()))))?;
                peers[rank - 1] = Some(stream);
            }
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Err(_) => {
                let missing: Vec<String> =
                    (1..=peers.len()).filter(|r| peers[r - 1].is_none()).map(|r| r.to_string()).collect();
                let (wanted, came) = (peers.len(), peers.len() - missing.len());
                let missing = missing.join(", ");
                return Err(RendezvousError::Missing { came, wanted, seconds: patience.as_secs(), missing });
            }
        }
    }
    Ok(())
}

/// The rank of a peer that belongs here.
fn admit(
    stream: &mut TcpStream,
    peer: SocketAddr,
    peers: &[Option<TcpStream>],
    key: u64,
    deadline: Instant,
) -> Result<usize, RendezvousError> {
    let said: [u8; 28] = heard(stream, peer, deadline)?;
    let (body, sum) = said.split_at(24);
    checked(peer, body, sum)?;
    let number = |from: usize| u32::from_le_bytes([body[from], body[from + 1], body[from + 2], body[from + 3]]);
    let theirs = u64::from(number(8)) | u64::from(number(12)) << 32;
    let (size, rank) = (number(16) as usize, number(20) as usize);
    let wrong = |what: String| Err(RendezvousError::Wrong { peer, what });
    if theirs != key {
        return wrong("it runs another workload or another build; start all processes alike".into());
    }
    if size != peers.len() + 1 {
        return wrong(format!("it counts {size} processes, and here are {}", peers.len() + 1));
    }
    match peers.get(rank.wrapping_sub(1)) {
        Some(None) => Ok(rank),
        Some(Some(_)) => wrong(format!("rank {rank} is here already; give every process a rank of its own")),
        None => wrong(format!("it calls itself rank {rank}")),
    }
}

fn ask(world: &World, at: &[SocketAddr], key: u64, patience: Duration) -> Result<TcpStream, RendezvousError> {
    let deadline = Instant::now() + patience;
    let mut last = "no address".to_string();
    while Instant::now() < deadline {
        for &peer in at {
            match TcpStream::connect_timeout(&peer, left(deadline)) {
                Ok(mut stream) => return hear_out(&mut stream, peer, world, key, deadline).map(|()| stream),
                Err(e) => last = e.to_string(),
            }
        }
        std::thread::sleep(LOOK * 10);
    }
    let (host, port) = (world.host.clone(), world.port);
    Err(RendezvousError::Unreached { host, port, seconds: patience.as_secs(), last })
}

fn hear_out(
    stream: &mut TcpStream,
    peer: SocketAddr,
    world: &World,
    key: u64,
    deadline: Instant,
) -> Result<(), RendezvousError> {
    let foreign = |what: String| RendezvousError::Foreign { peer, what };
    stream.write_all(&hello(key, world.size as u32, world.rank as u32)).map_err(|e| foreign(e.to_string()))?;
    // The answer comes when the last process has; rank 0 keeps the time, and a little is given to its refusal.
    let patient = deadline + SILENCE;
    let head: [u8; 13] = waited(stream, peer, patient, patient)?;
    let len = u32::from_le_bytes([head[9], head[10], head[11], head[12]]) as usize;
    if &head[..8] != MAGIC || len > MOST {
        return Err(foreign("its answer begins otherwise".into()));
    }
    let mut rest = vec![0; len + 4];
    read(stream, &mut rest, peer, patient)?;
    let (payload, sum) = rest.split_at(len);
    checked(peer, &[&head[..], payload].concat(), sum)?;
    match head[8] {
        1 => Ok(()),
        _ => Err(RendezvousError::Refused(String::from_utf8_lossy(payload).into_owned())),
    }
}

fn hello(key: u64, size: u32, rank: u32) -> Vec<u8> {
    with_sum([&MAGIC[..], &key.to_le_bytes(), &size.to_le_bytes(), &rank.to_le_bytes()].concat())
}

fn answer(given: bool, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MOST)];
    with_sum([&MAGIC[..], &[u8::from(given)], &(payload.len() as u32).to_le_bytes(), payload].concat())
}

fn with_sum(mut message: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&message);
    message.extend_from_slice(&sum.to_le_bytes());
    message
}

fn checked(peer: SocketAddr, body: &[u8], sum: &[u8]) -> Result<(), RendezvousError> {
    if !body.starts_with(MAGIC) {
        return Err(RendezvousError::Foreign { peer, what: "it begins otherwise".into() });
    }
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Err(RendezvousError::Foreign { peer, what: "its checksum is another".into() });
    }
    Ok(())
}

/// What a peer has to say at once.
fn heard<const N: usize>(
    stream: &mut TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Result<[u8; N], RendezvousError> {
    waited(stream, peer, deadline, Instant::now() + SILENCE)
}

fn waited<const N: usize>(
    stream: &mut TcpStream,
    peer: SocketAddr,
    deadline: Instant,
    silent_until: Instant,
) -> Result<[u8; N], RendezvousError> {
    let mut bytes = [0; N];
    read(stream, &mut bytes, peer, deadline.min(silent_until))?;
    Ok(bytes)
}

fn read(stream: &mut TcpStream, to: &mut [u8], peer: SocketAddr, until: Instant) -> Result<(), RendezvousError> {
    let foreign = |what: String| RendezvousError::Foreign { peer, what };
    let _ = stream.set_nonblocking(false);
    let mut got = 0;
    while got < to.len() {
        // A peer that says a byte now and then does not get more time by it.
        let _ = stream.set_read_timeout(Some(left(until)));
        match stream.read(&mut to[got..]) {
            Ok(0) => return Err(foreign(format!("it hung up after {got} of {} bytes", to.len()))),
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) if Instant::now() >= until => {
                return Err(foreign(format!("it fell silent after {got} of {} bytes", to.len())));
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(foreign(e.to_string())),
        }
    }
    Ok(())
}

/// What is left until then; never nothing, which a socket takes for "for ever".
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(rank: usize, size: usize, port: u16) -> World {
        World { rank, size, local_rank: rank, local_size: size, own_cores: false, host: "127.0.0.1".into(), port }
    }

    fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);

    /// The whole meeting, and who is connected to whom afterwards.
    fn meet(world: &World, key: u64, patience: Duration) -> Result<usize, RendezvousError> {
        if world.rank > 0 {
            return join(world, key, patience).map(|_| 1);
        }
        gathered(&listen(&world.host, world.port)?, world.size, key, patience).map(|all| all.len())
    }

    /// Rank 0 of three, and what `others` do meanwhile.
    fn rank_zero(patience: Duration, others: impl FnOnce(u16) + Send) -> Result<usize, RendezvousError> {
        let (listener, port) = listener();
        std::thread::scope(|scope| {
            scope.spawn(move || others(port));
            gathered(&listener, 3, 7, patience).map(|all| all.len())
        })
    }

    #[test]
    fn all_are_told_once_the_last_has_come() {
        let told = rank_zero(PATIENCE, |port| {
            let late = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                meet(&world(2, 3, port), 7, PATIENCE).unwrap()
            });
            assert_eq!(meet(&world(1, 3, port), 7, PATIENCE).unwrap(), 1);
            assert_eq!(late.join().unwrap(), 1);
        });
        assert_eq!(told.unwrap(), 2);
    }

    #[test]
    fn rank_zero_may_come_last() {
        let (probe, port) = listener();
        drop(probe);
        let waiting = std::thread::spawn(move || meet(&world(1, 2, port), 7, PATIENCE).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(meet(&world(0, 2, port), 7, PATIENCE).unwrap(), 1);
        assert_eq!(waiting.join().unwrap(), 1);
    }

    #[test]
    fn a_process_that_does_not_come_is_named() {
        let error = rank_zero(SHORT, |port| {
            let refused = meet(&world(1, 3, port), 7, PATIENCE).unwrap_err();
            assert!(matches!(refused, RendezvousError::Refused(_)), "{refused}");
        });
        let message = error.unwrap_err().to_string();
        assert!(message.contains("1 of 2") && message.contains("ranks 2 are missing"), "{message}");
        let (probe, port) = listener();
        drop(probe);
        let message = meet(&world(1, 2, port), 7, SHORT).unwrap_err().to_string();
        assert!(message.contains("was not reached"), "{message}");
    }

    #[test]
    fn who_does_not_belong_here_ends_the_meeting_on_both_sides() {
        for (rank, size, key, expected) in [
            (1, 3, 8, "another workload"),
            (1, 4, 7, "counts 4 processes, and here are 3"),
            (5, 3, 7, "calls itself rank 5"),
        ] {
            let error = rank_zero(PATIENCE, |port| {
                let message = meet(&world(rank, size, port), key, PATIENCE).unwrap_err().to_string();
                assert!(message.contains(expected), "{message}");
            });
            assert!(error.unwrap_err().to_string().contains(expected));
        }
        let error = rank_zero(PATIENCE, |port| {
            let first = std::thread::spawn(move || meet(&world(1, 3, port), 7, PATIENCE));
            let second = meet(&world(1, 3, port), 7, PATIENCE);
            let (first, second) = (first.join().unwrap().unwrap_err(), second.unwrap_err());
            assert!([first, second].iter().any(|e| e.to_string().contains("rank 1 is here already")));
        });
        assert!(error.unwrap_err().to_string().contains("rank 1 is here already"));
    }

    #[test]
    fn half_a_word_is_an_error_and_not_a_wait() {
        let sends = |bytes: Vec<u8>| {
            let begun = Instant::now();
            let error = rank_zero(PATIENCE, move |port| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.write_all(&bytes).unwrap();
            });
            assert!(begun.elapsed() < SILENCE);
            error.unwrap_err().to_string()
        };
        assert!(sends(hello(7, 3, 1)[..20].to_vec()).contains("hung up after 20 of 28 bytes"));
        assert!(sends(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n".to_vec()).contains("begins otherwise"));
        let mut torn = hello(7, 3, 1);
        torn[20] ^= 1;
        assert!(sends(torn).contains("its checksum is another"));
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        let mut wrong_sum = answer(true, &[1, 2, 3]);
        wrong_sum[13] ^= 1;
        for (bytes, expected) in [
            (answer(true, &[1, 2, 3])[..15].to_vec(), "hung up after 2 of 7 bytes"),
            (wrong_sum, "its checksum is another"),
            (vec![0; 13], "its answer begins otherwise"),
        ] {
            let (listener, port) = listener();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut said = [0; 28];
                stream.read_exact(&mut said).unwrap();
                stream.write_all(&bytes).unwrap();
            });
            let message = meet(&world(1, 2, port), 7, PATIENCE).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            server.join().unwrap();
        }
    }
}
