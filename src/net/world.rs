//! Which process of how many this is, as launchers tell by the environment: torchrun and its like (`RANK`, `WORLD_SIZE`,
//! `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`), or `srun` (`SLURM_PROCID`, `SLURM_NTASKS`, `SLURM_LOCALID`, the first host of
//! `SLURM_JOB_NODELIST`).

use serde::{Deserialize, Serialize};

/// Where rank 0 is met when `MASTER_PORT` does not say; under Slurm, the job's number is added, so that two jobs that share a node
/// do not meet.
const PORT: u16 = 29500;
const JOBS: u64 = 2000;

/// One process among those that run a workload together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    pub rank: usize,
    pub size: usize,
    /// Among the processes of this node: which device it takes.
    pub local_rank: usize,
    /// Processes of this node, as far as the launcher tells.
    pub local_size: usize,
    /// Whether the launcher gives every process cores of its own (Slurm), and not all of them the node's.
    pub own_cores: bool,
    /// Where rank 0 is met.
    pub host: String,
    pub port: u16,
}

/// What the environment says that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    #[error("{set} is in the environment and {missing} is not; set both, or neither to run alone")]
    Half { set: &'static str, missing: &'static str },
    #[error("{name}={value} is no whole number{}", if *.name == "MASTER_PORT" { " up to 65535" } else { "" })]
    NoNumber { name: &'static str, value: String },
    #[error("{name} is {rank}, and there are {size} processes; ranks count from 0")]
    Beyond { name: &'static str, rank: usize, size: usize },
    #[error("SLURM_JOB_NODELIST={0} names no host; set MASTER_ADDR")]
    NoHost(String),
}

impl World {
    /// The world that the environment tells of; `None` where this process is alone.
    ///
    /// # Errors
    /// A variable that is missing beside others, or that is no number.
    pub fn from_environment() -> Result<Option<Self>, WorldError> {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, WorldError> {
        let e = Environment(&get);
        if get("RANK").is_some() || get("WORLD_SIZE").is_some() {
            let (rank, size) = (e.needed("RANK", "WORLD_SIZE")?, e.needed("WORLD_SIZE", "RANK")?);
            let Some(local_rank) = e.place("RANK", rank, size, "LOCAL_RANK")? else { return Ok(None) };
            let host = get("MASTER_ADDR").ok_or(WorldError::Half { set: "WORLD_SIZE", missing: "MASTER_ADDR" })?;
            let port = e.number("MASTER_PORT")?.unwrap_or(PORT);
            // Then torchrun itself listens there.
            let taken = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v.eq_ignore_ascii_case("true"));
            let port = if taken { port.checked_add(1).unwrap_or(PORT) } else { port };
            let near = if ["localhost", "127.0.0.1", "::1"].contains(&host.as_str()) { size } else { local_rank + 1 };
            let local_size =
                e.number("LOCAL_WORLD_SIZE")?.unwrap_or(near).clamp(local_rank + 1, size.max(local_rank + 1));
            return Ok(Some(Self { rank, size, local_rank, local_size, own_cores: false, host, port }));
        }
        // A batch script has the job's variables as well, and is not one of the processes that `srun` starts.
        if get("SLURM_STEP_ID").is_none() || get("SLURM_PROCID").is_none() {
            return Ok(None);
        }
        let (rank, size) = (e.needed("SLURM_PROCID", "SLURM_NTASKS")?, e.needed("SLURM_NTASKS", "SLURM_PROCID")?);
        let Some(local_rank) = e.place("SLURM_PROCID", rank, size, "SLURM_LOCALID")? else { return Ok(None) };
        let nodes = get("SLURM_JOB_NODELIST").unwrap_or_default();
        let host = get("MASTER_ADDR").or_else(|| first_host(&nodes)).ok_or(WorldError::NoHost(nodes))?;
        let job: u64 = e.number("SLURM_JOB_ID")?.unwrap_or(0);
        let port = e.number("MASTER_PORT")?.unwrap_or(PORT + (job % JOBS) as u16);
        let tasks = get("SLURM_STEP_TASKS_PER_NODE").and_then(|list| tasks_of(&list, e.number("SLURM_NODEID").ok()??));
        let local_size = tasks.unwrap_or(local_rank + 1);
        Ok(Some(Self { rank, size, local_rank, local_size, own_cores: true, host, port }))
    }
}

struct Environment<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Environment<'_, F> {
    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, WorldError> {
        let Some(value) = self.0(name) else { return Ok(None) };
        value.trim().parse().map(Some).map_err(|_| WorldError::NoNumber { name, value })
    }

    fn needed(&self, name: &'static str, beside: &'static str) -> Result<usize, WorldError> {
        self.number(name)?.ok_or(WorldError::Half { set: beside, missing: name })
    }

    /// The local rank; `None` where there is one process alone.
    fn place(
        &self,
        name: &'static str,
        rank: usize,
        size: usize,
        local: &'static str,
    ) -> Result<Option<usize>, WorldError> {
        if rank >= size {
            return Err(WorldError::Beyond { name, rank, size });
        }
        let local_rank = self.number(local)?.unwrap_or(0);
        Ok((size > 1).then_some(local_rank))
    }
}

/// The tasks of a node by Slurm's short form: of `2(x3),1` the first three nodes have 2.
fn tasks_of(list: &str, node: usize) -> Option<usize> {
    let mut nodes = 0;
    for part in list.split(',') {
        let (tasks, times) = match part.split_once("(x") {
            Some((tasks, times)) => (tasks, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        nodes += times;
        if node < nodes {
            return tasks.trim().parse().ok();
        }
    }
    None
}

/// The first host of Slurm's short form: `gpu[003-005,9],login1` is `gpu003`.
fn first_host(nodes: &str) -> Option<String> {
    let end = nodes.find([',', '[']).unwrap_or(nodes.len());
    let (name, rest) = nodes.split_at(end);
    let host = match rest.strip_prefix('[') {
        Some(ranges) => {
            let (inside, after) = ranges.split_once(']')?;
            let number = inside.split([',', '-']).next()?;
            let after = &after[..after.find(',').unwrap_or(after.len())];
            format!("{name}{number}{after}")
        }
        None => name.to_string(),
    };
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &[(&str, &str)]) -> Result<Option<World>, WorldError> {
        World::of(|name| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string()))
    }

    fn world(rank: usize, size: usize, local_rank: usize, host: &str, port: u16) -> World {
        World { rank, size, local_rank, local_size: local_rank + 1, own_cores: false, host: host.into(), port }
    }

    #[test]
    fn processes_of_a_node_are_counted_where_the_launcher_tells() {
        for (node, tasks) in [(0, Some(2)), (2, Some(2)), (3, Some(1)), (4, None)] {
            assert_eq!(tasks_of("2(x3),1", node), tasks);
        }
        let by_hand = [("RANK", "0"), ("WORLD_SIZE", "3"), ("MASTER_ADDR", "127.0.0.1")];
        assert_eq!(of(&by_hand).unwrap().unwrap().local_size, 3);
        let torchrun = [&by_hand[..2], &[("MASTER_ADDR", "a"), ("LOCAL_WORLD_SIZE", "2")]].concat();
        assert_eq!(of(&torchrun).unwrap().unwrap().local_size, 2);
    }

    #[test]
    fn launchers_are_understood() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("RANK", "0"), ("WORLD_SIZE", "1")]), Ok(None));
        let torchrun =
            [("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "7")];
        assert_eq!(of(&torchrun), Ok(Some(world(5, 8, 1, "a", 7))));
        let agent = [&torchrun[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(of(&agent), Ok(Some(world(5, 8, 1, "a", 8))), "its agent has the port");
        let slurm = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "2"),
            ("SLURM_NTASKS", "4"),
            ("SLURM_LOCALID", "2"),
            ("SLURM_JOB_NODELIST", "gpu[003-005,9],login1"),
            ("SLURM_JOB_ID", "4007"),
        ];
        let slurmed = |w: World| Ok(Some(World { own_cores: true, ..w }));
        assert_eq!(of(&slurm), slurmed(world(2, 4, 2, "gpu003", 29507)));
        assert_eq!(of(&slurm[1..]), Ok(None), "a batch script");
        assert_eq!(
            of(&[&[("MASTER_ADDR", "b"), ("MASTER_PORT", "9")], &slurm[..]].concat()),
            slurmed(world(2, 4, 2, "b", 9))
        );
    }

    #[test]
    fn what_cannot_be_says_what_is_missing() {
        let message = |e: &[(&str, &str)]| of(e).unwrap_err().to_string();
        assert_eq!(
            message(&[("RANK", "1")]),
            "RANK is in the environment and WORLD_SIZE is not; set both, or neither to run alone"
        );
        assert!(message(&[("RANK", "1"), ("WORLD_SIZE", "2")]).contains("MASTER_ADDR"));
        assert_eq!(
            message(&[("RANK", "2"), ("WORLD_SIZE", "2")]),
            "RANK is 2, and there are 2 processes; ranks count from 0"
        );
        assert_eq!(message(&[("RANK", "x"), ("WORLD_SIZE", "2")]), "RANK=x is no whole number");
        let port = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "70000")];
        assert_eq!(message(&port), "MASTER_PORT=70000 is no whole number up to 65535");
        let nowhere = [("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")];
        assert!(message(&nowhere).contains("set MASTER_ADDR"));
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (list, first) in [("n1", "n1"), ("n1,n2", "n1"), ("n[7,9]-ib,x", "n7-ib"), ("rack[01-02]", "rack01")] {
            assert_eq!(first_host(list).as_deref(), Some(first));
        }
        assert_eq!((first_host(""), first_host("n[1")), (None, None));
    }
}
