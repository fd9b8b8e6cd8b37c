//! Several GPUs: the collectives of [`super::super::collective`] by NCCL.
//!
//! Ranks that split layers exchange in the stream that everything else is in, between one operation and the next. Replicas exchange
//! in a stream of their own beside the backward pass: it starts when the gradients of a bucket are there, and the first stream
//! goes on with the next layer until it needs what comes back. (Not in the first steps, in which memory is taken, kernels are loaded
//! and products are planned: there they exchange in the first stream, and the host waits.) Where replicas are split as well, or are stages of
//! a pipeline, all exchange in the one stream: two communicators at work on a device at once may wait for each other for ever, unless all
//! devices happen to take them in the same order. (In one stream each device takes them in the order in which its rank asks, and that
//! this brings every stage to the end is tested in `ranks/schedule.rs`; replicas' ranks of a stage ask for the same.)
//!
//! Of a buffer, what products and kernels read is exchanged: gradients in f32, activations in their format; of a parameter that is
//! trained in bf16, the bf16. (Where the optimizer is sharded, the f32 of a parameter is kept up to date by the rank whose share it
//! is, and nobody else reads it.) Sums of bf16 are rounded at each step that NCCL takes.

use super::super::Dtype;
use super::super::backend::{Alloc, Backend, Category};
use super::super::collective::grid::{Groups, Of, Parallel, count_groups, groups};
use super::super::collective::net::Net;
use super::super::collective::{Collective, Counts, Job, Reduce, Ticket, share};
use super::super::error::SessionError;
use super::Cuda;
use super::buffer::Buffer;
use super::driver::CudaGpu;
use super::driver::nccl::{Call, Communicator, Nccl, NcclFault, Op};
use super::driver::side::Side;
use std::sync::{Arc, Mutex, PoisonError};

/// Whether replicas exchange beside the backward pass.
pub(in super::super) fn beside(parallel: &Parallel) -> bool {
    parallel.data > 1 && parallel.tensor == 1 && parallel.pipeline == 1
}

/// A rank's place in a group. Its fields go in this order: what lies on a device before the device.
#[derive(Debug)]
struct Member {
    /// The stream beside the device's own, where this group has one.
    side: Option<Mutex<Side>>,
    communicator: Communicator,
    nccl: &'static Nccl,
    rank: usize,
    size: usize,
    gpu: Arc<CudaGpu>,
}

impl Member {
    fn put(&self, job: Job, buffers: &[Buffer], stream: cudarc::driver::sys::CUstream) {
        let all = || {
            for b in buffers {
                let (base, size) = (b.at(), b.format().size());
                for call in calls(job, b.len, self.rank, self.size) {
                    self.communicator.call(placed(call, base, size as u64), size == 2, stream)?;
                }
            }
            Ok(())
        };
        self.gpu.note("exchanging", self.nccl.together(all));
    }
}

impl Collective<Buffer> for Member {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.size
    }
    fn overlaps(&self) -> bool {
        self.side.is_some()
    }
    fn start(&self, job: Job, buffers: &mut [Buffer]) -> Ticket {
        self.gpu.enter();
        let Some(side) = &self.side else {
            self.put(job, buffers, self.gpu.stream());
            return Ticket(0);
        };
        let mut side = side.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.gpu.is_calm() {
            // A first step takes memory, loads kernels and plans products all along: nothing of another rank may be under way then.
            self.gpu.note("a stream beside", side.join_all(self.gpu.stream()));
            self.put(job, buffers, self.gpu.stream());
            self.gpu.drain();
            return Ticket(0);
        }
        let begun = side.begin(self.gpu.stream());
        self.gpu.note("a stream beside", begun);
        self.put(job, buffers, side.stream());
        Ticket(self.gpu.note("a stream beside", side.end()).unwrap_or(0))
    }
    fn finish(&self, job: Ticket) {
        if let Some(side) = &self.side {
            self.gpu.enter();
            let mut side = side.lock().unwrap_or_else(PoisonError::into_inner);
            self.gpu.note("a stream beside", side.join(job.0, self.gpu.stream()));
        }
    }
    fn all_to_all(&self, from: &mut Buffer, to: &mut Buffer, counts: Counts<'_>) {
        self.gpu.enter();
        let size = from.format().size();
        let all = || {
            for call in exchange(counts) {
                let base = if matches!(call, Call::Send { .. }) { from.at() } else { to.at() };
                self.communicator.call(placed(call, base, size as u64), size == 2, self.gpu.stream())?;
            }
            Ok(())
        };
        self.gpu.note("exchanging", self.nccl.together(all));
    }
    fn check(&self) -> Result<(), SessionError> {
        self.communicator.check().map_err(device)
    }
}

fn device(e: NcclFault) -> SessionError {
    match e {
        NcclFault::Failed { .. } => SessionError::Device(e.to_string()),
        _ => SessionError::NoCuda(e.to_string()),
    }
}

/// What NCCL is asked for, in elements from the start of a buffer of `len`. Its own scatter and gather have shares of equal length:
/// where ours are not, each rank's is a call of its own.
fn calls(job: Job, len: usize, rank: usize, size: usize) -> Vec<Call> {
    let shares = || (0..size).map(|r| (r, share(len, r, size))).filter(|(_, s)| !s.is_empty());
    let own = share(len, rank, size);
    let equal = own.len() * size == len;
    let op = |how| match how {
        Reduce::Sum => Op::Sum,
        Reduce::Mean => Op::Mean,
        Reduce::Max => Op::Max,
    };
    let (at, mine, count) = (0, own.start as u64, own.len());
    match job {
        _ if len == 0 => Vec::new(),
        Job::AllReduce(how) => vec![Call::AllReduce { at, count: len, op: op(how) }],
        Job::ReduceScatter(how) if equal => vec![Call::ReduceScatter { at, own: mine, count, op: op(how) }],
        Job::ReduceScatter(how) => {
            shares().map(|(root, s)| Call::Reduce { at: s.start as u64, count: s.len(), op: op(how), root }).collect()
        }
        Job::AllGather if equal => vec![Call::AllGather { at, own: mine, count }],
        Job::AllGather => {
            shares().map(|(root, s)| Call::Broadcast { at: s.start as u64, count: s.len(), root }).collect()
        }
        Job::Broadcast { root } => vec![Call::Broadcast { at, count: len, root }],
    }
}

/// What it is asked for where each rank has something else for every other: one group of calls, from the start of one buffer into another.
fn exchange(counts: Counts<'_>) -> Vec<Call> {
    let places = |counts: &[usize]| {
        let starts = counts.iter().scan(0, |next: &mut u64, n| {
            let start = *next;
            *next += *n as u64;
            Some(start)
        });
        starts.zip(counts.to_vec()).enumerate().filter(|(_, (_, count))| *count > 0).collect::<Vec<_>>()
    };
    let sent = places(counts.sent).into_iter().map(|(to, (at, count))| Call::Send { at, count, to });
    let received = places(counts.received).into_iter().map(|(from, (at, count))| Call::Receive { at, count, from });
    sent.chain(received).collect()
}

/// The same call at an address.
fn placed(call: Call, base: u64, size: u64) -> Call {
    let to = |at: u64| base + at * size;
    match call {
        Call::AllReduce { at, count, op } => Call::AllReduce { at: to(at), count, op },
        Call::ReduceScatter { at, own, count, op } => Call::ReduceScatter { at: to(at), own: to(own), count, op },
        Call::Reduce { at, count, op, root } => Call::Reduce { at: to(at), count, op, root },
        Call::AllGather { at, own, count } => Call::AllGather { at: to(at), own: to(own), count },
        Call::Broadcast { at, count, root } => Call::Broadcast { at: to(at), count, root },
        Call::Send { at, count, to: rank } => Call::Send { at: to(at), count, to: rank },
        Call::Receive { at, count, from } => Call::Receive { at: to(at), count, from },
    }
}

/// A backend for each rank of this process, in their order, and whom it talks to. Of several processes each has an equal, connected
/// part of the ranks.
///
/// # Errors
/// What is missing of GPUs or NCCL; ranks that do not divide among the processes; processes that are gone.
pub(in super::super) fn open(
    parallel: &Parallel,
    copies: u32,
    dtype: Dtype,
    net: Option<&Net>,
) -> Result<(Vec<Cuda>, Vec<Groups<Buffer>>), SessionError> {
    let all = parallel.ranks().unwrap_or(0) as usize;
    let local = net.map_or(Ok(0..all), |net| net.part_of(all))?;
    let here = local.len();
    let first_device = net.map_or(0, |net| net.world.local_rank * here);
    let gpus = (0..here).map(|i| CudaGpu::open(first_device + i).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let ids = identities(count_groups(parallel, copies), net)?;
    let mut next = ids.into_iter();
    let group = |ranks: &[usize], own: &[usize], of: Of| -> Result<Vec<Arc<dyn Collective<Buffer>>>, SessionError> {
        let id = next.next().ok_or_else(|| SessionError::Invalid("an NCCL id too few".into()))?;
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let nccl = Nccl::get().map_err(device)?;
        let places: Vec<usize> = (0..ranks.len()).filter(|p| own.contains(&ranks[*p])).collect();
        let enter = |place: usize| gpus[ranks[place] - local.start].enter();
        let joined = nccl.join(id, ranks.len(), &places, enter).map_err(device)?;
        own.iter()
            .zip(joined.into_iter().zip(&places))
            .map(|(rank, (communicator, place))| {
                let gpu = Arc::clone(&gpus[rank - local.start]);
                gpu.enter();
                let side = if of == Of::Replicas && beside(parallel) {
                    Some(Mutex::new(Side::new().map_err(|e| SessionError::Device(e.to_string()))?))
                } else {
                    None
                };
                let (rank, size) = (*place, ranks.len());
                Ok(Arc::new(Member { gpu, communicator, nccl, rank, size, side }) as Arc<dyn Collective<Buffer>>)
            })
            .collect()
    };
    let groups = groups(parallel, copies, local.clone(), group)?;
    let backends = gpus.iter().map(|gpu| Cuda::on_device(gpu.clone(), dtype)).collect::<Result<Vec<_>, _>>()?;
    Ok((backends, groups))
}

/// A group of one on the GPU of this number: NCCL is found, joined and asked for each of its calls once, on elements that all of
/// them have to leave as they are. What can be tried of it with a single GPU.
///
/// # Errors
/// What is missing, what a call says, or values that are others afterwards.
pub(crate) fn try_alone(ordinal: usize) -> Result<(), SessionError> {
    let gpu = Arc::new(CudaGpu::open(ordinal)?);
    let nccl = Nccl::get().map_err(device)?;
    let id = nccl.unique_id().map_err(device)?;
    let mut joined = nccl.join(id, 1, &[0], |_| gpu.enter()).map_err(device)?;
    let communicator = joined.pop().ok_or_else(|| SessionError::Invalid("NCCL made no communicator".into()))?;
    let side = Some(Mutex::new(Side::new().map_err(|e| SessionError::Device(e.to_string()))?));
    let member = Member { gpu: Arc::clone(&gpu), communicator, nccl, rank: 0, size: 1, side };
    let cuda = Cuda::on_device(gpu, Dtype::F32)?;
    let values: Vec<f32> = (0..1001u16).map(f32::from).collect();
    let mut buffer = cuda.alloc(values.len(), Category::Gradients)?;
    let jobs = [
        Job::AllReduce(Reduce::Sum),
        Job::AllReduce(Reduce::Mean),
        Job::AllReduce(Reduce::Max),
        Job::ReduceScatter(Reduce::Mean),
        Job::AllGather,
        Job::Broadcast { root: 0 },
    ];
    for job in jobs {
        cuda.upload(&values, &mut buffer);
        let ticket = member.start(job, std::slice::from_mut(&mut buffer));
        member.finish(ticket);
        let mut found = vec![0.0; values.len()];
        cuda.download(&buffer, 0, &mut found);
        cuda.check()?;
        member.check()?;
        if found != values {
            return Err(SessionError::Device(format!("NCCL, {job:?} of one rank: other values than before")));
        }
    }
    Ok(())
}

/// An id for every group, in the order in which they are made; the first process makes them.
fn identities(count: usize, net: Option<&Net>) -> Result<Vec<[u8; 128]>, SessionError> {
    let make = || {
        let nccl = Nccl::get()?;
        (0..count).map(|_| nccl.unique_id()).collect::<Result<Vec<_>, _>>()
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    let Some(net) = net else { return make().map_err(device) };
    let own = if net.leads() { make().map_err(device)? } else { Vec::new() };
    let bytes = net.told(own.concat())?;
    match bytes.as_chunks::<128>() {
        (ids, []) if ids.len() == count => Ok(ids.to_vec()),
        _ => Err(SessionError::Invalid(format!("rank 0 gave {} bytes for {count} NCCL ids", bytes.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_one_without_a_gpu_says_what_is_missing() {
        if super::super::driver::available().is_err() {
            assert!(matches!(try_alone(0), Err(SessionError::NoCuda(_))));
        }
    }

    /// What the calls of all ranks leave in their buffers, as NCCL's documentation has it.
    fn run(job: Job, buffers: &mut [Vec<f32>]) {
        let (size, len) = (buffers.len(), buffers[0].len());
        let all: Vec<Vec<Call>> = (0..size).map(|r| calls(job, len, r, size)).collect();
        assert!(all.iter().all(|c| c.len() == all[0].len()), "every rank makes as many calls");
        for (i, _) in all[0].iter().enumerate() {
            let before: Vec<Vec<f32>> = buffers.to_vec();
            let reduced = |at: usize, op: Op| {
                let sum = before.iter().map(|b| b[at]).sum::<f32>();
                match op {
                    Op::Sum => sum,
                    Op::Mean => sum / size as f32,
                    Op::Max => before.iter().map(|b| b[at]).fold(f32::NEG_INFINITY, f32::max),
                }
            };
            for (rank, buffer) in buffers.iter_mut().enumerate() {
                match all[rank][i] {
                    Call::AllReduce { at, count, op } => {
                        (at as usize..at as usize + count).for_each(|j| buffer[j] = reduced(j, op));
                    }
                    Call::ReduceScatter { at, own, count, op } => {
                        assert_eq!(own, at + (rank * count) as u64, "in place");
                        (own as usize..own as usize + count).for_each(|j| buffer[j] = reduced(j, op));
                    }
                    Call::Reduce { at, count, op, root } => {
                        (at as usize..at as usize + count)
                            .filter(|_| root == rank)
                            .for_each(|j| buffer[j] = reduced(j, op));
                    }
                    Call::AllGather { at, own, count } => {
                        assert_eq!(own, at + (rank * count) as u64, "in place");
                        let from = |j: usize| &before[(j - at as usize) / count];
                        (at as usize..at as usize + size * count).for_each(|j| buffer[j] = from(j)[j]);
                    }
                    Call::Broadcast { at, count, root } => {
                        (at as usize..at as usize + count).for_each(|j| buffer[j] = before[root][j]);
                    }
                    Call::Send { .. } | Call::Receive { .. } => panic!("no job is made of these"),
                }
            }
        }
    }

    #[test]
    fn nccl_is_asked_for_what_the_threads_do() {
        for size in [2, 3, 4] {
            for len in [1, 16, 48, 64, 96, 100, 1000, 1024] {
                let start = |rank: usize| (0..len).map(|i| ((i + 1) * (rank + 1)) as f32).collect::<Vec<f32>>();
                for how in [Reduce::Sum, Reduce::Mean, Reduce::Max] {
                    let mut whole: Vec<_> = (0..size).map(start).collect();
                    run(Job::AllReduce(how), &mut whole);
                    let mut parts: Vec<_> = (0..size).map(start).collect();
                    run(Job::ReduceScatter(how), &mut parts);
                    for (rank, part) in parts.iter().enumerate() {
                        assert_eq!(part[share(len, rank, size)], whole[rank][share(len, rank, size)], "{size} {len}");
                    }
                    run(Job::AllGather, &mut parts);
                    assert_eq!(parts, whole, "{size} ranks, {len} elements");
                }
                let mut told: Vec<_> = (0..size).map(start).collect();
                run(Job::Broadcast { root: 1 }, &mut told);
                assert!(told.iter().all(|b| *b == start(1)));
            }
        }
    }

    #[test]
    fn what_one_rank_sends_another_is_what_that_one_receives() {
        let sizes = [[2, 0, 5], [0, 0, 1], [3, 4, 0]];
        let calls: Vec<Vec<Call>> = (0..3)
            .map(|rank| exchange(Counts { sent: &sizes[rank], received: &[0, 1, 2].map(|from| sizes[from][rank]) }))
            .collect();
        let mut found: Vec<Vec<f32>> = vec![vec![-1.0; 9]; 3];
        for (rank, own) in calls.iter().enumerate() {
            for call in own {
                let Call::Send { at, count, to } = *call else { continue };
                let taken = calls[to].iter().filter_map(|c| match *c {
                    Call::Receive { at, count, from } if from == rank => Some((at, count)),
                    _ => None,
                });
                let taken: Vec<(u64, usize)> = taken.collect();
                assert_eq!(taken.len(), 1, "rank {to} takes of rank {rank} once");
                let (place, expected) = taken[0];
                assert_eq!(count, expected);
                (0..count).for_each(|i| found[to][place as usize + i] = (rank * 100 + at as usize + i) as f32);
            }
        }
        assert_eq!(found[0][..6], [0.0, 1.0, 200.0, 201.0, 202.0, -1.0]);
        assert_eq!(found[1][..5], [203.0, 204.0, 205.0, 206.0, -1.0]);
        assert_eq!(found[2][..7], [2.0, 3.0, 4.0, 5.0, 6.0, 100.0, -1.0]);
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [4, 2, 4], "nothing is no call");
    }

    #[test]
    fn calls_stand_at_the_buffers_address() {
        let call = calls(Job::ReduceScatter(Reduce::Sum), 64, 1, 2)[0];
        let expected = Call::ReduceScatter { at: 4096, own: 4096 + 32 * 2, count: 32, op: Op::Sum };
        assert_eq!(placed(call, 4096, 2), expected);
    }

    #[test]
    fn several_gpus_where_there_are_none_say_what_is_missing() {
        if super::super::driver::available().is_ok() {
            return println!("skipped: there are GPUs here");
        }
        let error = open(&Parallel::replicas(2), 1, Dtype::Bf16, None).unwrap_err();
        assert!(matches!(error, SessionError::NoCuda(_)), "{error}");
    }
}
