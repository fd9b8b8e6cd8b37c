//! Why another process is of no further use.

use std::fmt;
use std::net::SocketAddr;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Rank(usize),
    /// It has not said yet who it is.
    At(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Rank(rank) => write!(f, "rank {rank}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// A process that is of no further use, and how that showed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{peer}{} {how}", if matches!(how, How::Told(_)) { ":" } else { "" })]
pub struct Lost {
    pub peer: Peer,
    pub how: How,
}

/// How a process was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum How {
    /// Its end of the connection is closed.
    #[error("is gone")]
    Gone,
    /// It said nothing for as long as it may be silent.
    #[error("fell silent")]
    Silent,
    /// It takes no more messages.
    #[error("takes nothing any more")]
    Deaf,
    /// It is there, and what it says is not what belongs here.
    #[error("{0}")]
    Wrong(String),
    /// The connection failed on this side, by the system's words.
    #[error("{0}")]
    Failed(String),
    /// It has lost another one itself; in its words.
    #[error("{0}")]
    Told(String),
}
