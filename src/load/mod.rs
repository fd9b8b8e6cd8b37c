//! Load on a server that speaks OpenAI's API: requests on a schedule, answers as they stream in, and what came of each.
//!
//! [`spec`] says what is asked for; [`schedule`] when, [`prompt`] with which words. [`client`] has connections, [`request`] sends one
//! request and reads its answer by [`sse`] and [`chunk`]; [`generator`] keeps to the schedule and makes a [`record::Record`] of every
//! request, whatever became of it; [`stretch`] says which of them count and when it is enough, [`summary`] what they come to. [`trace`] reads requests that somebody had,
//! [`metrics`] what the server tells of itself; [`search`] looks for the largest load that holds.
//!
//! It knows no scenario, no price and no process. Tokens are those that the server counts (`usage`), never chunks. An open loop keeps
//! to its schedule whatever the server does, and its latencies begin where a request was due: a server that stalls cannot hide it by
//! having fewer requests sent to it (coordinated omission).

mod chunk;
pub(crate) mod client;
pub(crate) mod counted;
pub(crate) mod generator;
pub(crate) mod metrics;
mod prompt;
pub(crate) mod record;
mod request;
mod schedule;
pub(crate) mod search;
pub(crate) mod served;
pub(crate) mod sizing;
pub(crate) mod spec;
mod sse;
pub(crate) mod stretch;
pub(crate) mod summary;
pub(crate) mod tokens;
pub(crate) mod trace;
mod url;

pub(crate) use url::check as check_address;
