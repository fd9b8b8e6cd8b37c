//! A run that a launcher starts as several processes (`srun`, torchrun and its like): rank 0 is the run as everybody knows it, the
//! others run their parts of its trials and leave no trace.

use super::super::Failure;
use super::{Arguments, signals};
use crate::data::cache_folder;
use crate::net::world::World;
use crate::plan::{Plan, PlannedTrial};
use crate::runner::team::{Follower, Leader, Next, TeamError, listen_at};
use crate::runner::{Options, Request, this_program};
use crate::scenario::{Measure, Scenario};
use crate::sweep::{identity, texts};
use anyhow::{Context, anyhow};
use std::net::TcpListener;
use std::time::Duration;

/// How long processes wait for one another: some are started later, and rank 0 may probe its machine first.
const PATIENCE: Duration = Duration::from_secs(300);

fn failure(e: TeamError) -> Failure {
    Failure::Io(e.into())
}

/// Rank 0 before it has met the others.
pub(super) struct Waiting {
    world: World,
    listener: TcpListener,
}

/// Takes the port at which the others come.
pub(super) fn wait_for_others(world: World) -> Result<Waiting, Failure> {
    let listener = listen_at(&world).map_err(failure)?;
    Ok(Waiting { world, listener })
}

impl Waiting {
    pub(super) fn meet(self, scenario: &Scenario, plan: &Plan, version: &str) -> Result<Leader, Failure> {
        let key = identity::team_key(scenario, plan, version);
        Leader::meet(self.world, &self.listener, key, PATIENCE).map_err(failure)
    }
}

/// A run that lost one of its processes.
pub(super) fn broken(why: &str, kept: usize, all: usize) -> Failure {
    Failure::Io(anyhow!("{why}; {kept} of {all} trials are kept; the same command goes on from there"))
}

/// What a trial's process is asked for.
pub(super) fn request(plan: &Plan, trial: &PlannedTrial, seed: u64) -> Request {
    let (trial, predicted_memory) = (trial.cell.trial.clone(), trial.memory);
    let measure = Measure { seed, ..plan.of_launch() };
    Request { trial, measure, predicted_memory, patience_seconds: 0.0, loss_change: false }
}

/// The run of a process that does not lead.
pub(super) fn follow(a: &Arguments, scenario: &Scenario, world: World) -> Result<(), Failure> {
    let interrupted =
        signals::interrupted_flag().context("installing the handlers of signals").map_err(Failure::Internal)?;
    let version = identity::program_version().context("reading this program's own file").map_err(Failure::Io)?;
    let program = this_program().context("finding this program's own file").map_err(Failure::Io)?;
    let options = Options { program, variables: Vec::new() };
    let plan = super::super::plan::make(scenario, None)?;
    let (rank, size) = (world.rank, world.size);
    let key = identity::team_key(scenario, &plan, &version);
    let first_of_node = world.local_rank == 0;
    let follower = Follower::join(world, key, PATIENCE).map_err(failure)?;
    if first_of_node {
        // Rank 0 makes those of its own node.
        texts::make(&plan.trials, cache_folder(), &interrupted, &mut |told| super::heard(told, a.quiet));
    }
    let mut parts = 0;
    loop {
        match follower.next(&interrupted).map_err(failure)? {
            Next::Run { trial_id, port, seed } => match plan.trials.iter().find(|t| t.id == trial_id) {
                Some(trial) => {
                    let request = request(&plan, trial, seed);
                    follower.run((&trial_id, port), request, &options, &interrupted).map_err(failure)?;
                    parts += 1;
                }
                None => follower.refuse(format!("there is no trial {trial_id} in its plan")).map_err(failure)?,
            },
            Next::End => break,
            Next::Interrupted => return Err(Failure::Interrupted(format!("rank {rank} of {size}: interrupted"))),
        }
    }
    if !a.quiet {
        let s = if parts == 1 { "" } else { "s" };
        eprintln!("rank {rank} of {size}: its part of {parts} trial{s} is done; rank 0 has the results");
    }
    Ok(())
}
