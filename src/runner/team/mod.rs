//! Sweeps of several processes, each of which starts a child of its own for its part of every trial.
//!
//! Rank 0 leads: it says which trial runs next and where its child waits for the others'; the others ([`Follower`]) run their parts and
//! say how they ended. What happens inside a trial its children settle among themselves. Both sides speak JSON in frames
//! ([`crate::net::wire::Wire`]), and every few seconds nothing (an empty frame), so that a node that vanished is missed.

mod connection;
mod follower;
mod leader;

use super::measurement::Status;
use super::watch::Disturbance;
use crate::net::lost::{Lost, Peer};
use crate::net::rendezvous::{RendezvousError, listen};
use crate::net::world::World;
pub(crate) use follower::{Follower, Next};
pub(crate) use leader::Leader;
use serde::{Deserialize, Serialize};
use std::net::TcpListener;
use std::time::Duration;

/// How often a process says that it is there, and how long one that does not is waited for.
const BEAT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(20);

/// How long a trial's other processes may take to end once it is over; their parents end them before that.
const GRACE: Duration = Duration::from_secs(10);
const CHILD_GRACE: Duration = Duration::from_secs(3);

/// Between two looks at whether to go on.
const LOOK: Duration = Duration::from_millis(100);

/// Why processes do not work together, or no longer do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TeamError {
    #[error("the processes of this run did not meet: {0}")]
    Apart(#[from] RendezvousError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("{0} said something that is none of this version's messages; start the same program everywhere")]
    Foreign(Peer),
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Run { trial_id: String, port: u16, seed: u64 },
    Over,
    End,
}

/// How a follower's part of a trial ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ended {
    status: Status,
    reason: String,
    /// The fault is another process's.
    elsewhere: bool,
    /// Resident bytes at most and before the model, and allocated bytes at most.
    bytes: [u64; 3],
    /// What its process lost.
    disturbance: Option<Disturbance>,
}

/// The key of one trial of a sweep.
fn trial_key(sweep: u64, trial_id: &str) -> u64 {
    sweep ^ u64::from_str_radix(trial_id, 16).unwrap_or_default().rotate_left(16)
}

/// Where rank 0 will be met; taken early, so that a port that is not free is known at once.
///
/// # Errors
/// A host that is none, a port that is taken.
pub(crate) fn listen_at(world: &World) -> Result<TcpListener, TeamError> {
    Ok(listen(&world.host, world.port)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_have_keys_of_their_own() {
        let keys: std::collections::HashSet<u64> =
            ["68787bbc6960", "137f9fab3121", "000000000000"].iter().map(|id| trial_key(5, id)).collect();
        assert_eq!(keys.len(), 3);
    }
}
