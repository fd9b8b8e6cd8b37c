use super::super::grid::{Stages, of_threads};
use super::super::net::tests::on_loopback;
use super::*;

const LENS: &[usize] = &[1, 7, 16, 33, 70_001];

/// What the buffers of some ranks hold after `jobs` in all their groups.
fn after(groups: Vec<Groups<Vec<f32>>>, first: usize, jobs: &[Job]) -> Vec<Vec<Vec<f32>>> {
    std::thread::scope(|scope| {
        let start = |(i, groups): (usize, Groups<Vec<f32>>)| {
            scope.spawn(move || {
                let number = |i: usize, rank: usize| ((i * 37 + rank * 101) % 1009) as f32 / 7.0;
                let buffer = |n: &usize| (0..*n).map(|j| number(j, first + i)).collect();
                let mut buffers: Vec<Vec<f32>> = LENS.iter().map(buffer).collect();
                for job in jobs {
                    let Stages { all, before, after, ends } = &groups.stages;
                    for group in [&groups.data, &groups.tensor, &groups.copies, all, before, after, ends] {
                        group.run(*job, &mut buffers);
                        group.check().unwrap();
                    }
                }
                (groups, buffers)
            })
        };
        let started: Vec<_> = groups.into_iter().enumerate().map(start).collect();
        let ended: Vec<_> = started.into_iter().map(|t| t.join().unwrap()).collect();
        ended.into_iter().map(|(_, buffers)| buffers).collect()
    })
}

/// Of four ranks of a replica two each hold the same heads.
fn copies(grid: &Parallel) -> u32 {
    if grid.tensor == 4 { 2 } else { 1 }
}

#[test]
fn ranks_of_several_processes_hold_the_bits_that_threads_do() {
    let jobs: &[&[Job]] = &[
        &[Job::AllReduce(Reduce::Sum)],
        &[Job::AllReduce(Reduce::Max)],
        &[Job::AllReduce(Reduce::Mean), Job::AllReduce(Reduce::Sum)],
        &[Job::ReduceScatter(Reduce::Mean), Job::AllGather],
        &[Job::Broadcast { root: 1 }],
    ];
    let grids = [(2, 2, 1), (3, 3, 1), (2, 1, 2), (2, 2, 2), (2, 1, 4), (4, 1, 4), (4, 2, 2), (3, 2, 3)]
        .map(|(processes, data, tensor)| (processes, Parallel { tensor, ..Parallel::replicas(data) }));
    let staged = [(2, 1, 2), (3, 1, 3), (2, 2, 3), (4, 2, 2), (4, 1, 4)]
        .map(|(processes, data, pipeline)| (processes, Parallel { pipeline, ..Parallel::replicas(data) }));
    for (processes, grid) in grids.into_iter().chain(staged) {
        let several = grid.pipeline > 1 || (grid.data > 1 && grid.tensor > 1) || copies(&grid) > 1;
        for jobs in jobs {
            // What a scattered rank holds of the others' shares is undefined, and with several groups goes into the next.
            if jobs.len() == 2 && jobs[1] == Job::AllGather && several {
                continue;
            }
            let expected = after(of_threads(&grid, copies(&grid)), 0, jobs);
            let found = on_loopback(processes, |net| {
                let local = net.part_of(grid.ranks().unwrap() as usize).unwrap();
                after(open(&grid, copies(&grid), &net).unwrap(), local.start, jobs)
            });
            assert_eq!(found.concat(), expected, "{processes} processes, {grid:?}, {jobs:?}");
        }
    }
}

#[test]
fn a_process_that_leaves_is_missed_by_name_and_not_waited_for() {
    let grid = Parallel::replicas(3);
    let found = on_loopback(3, |net| {
        let group = open::<Vec<f32>>(&grid, 1, &net).unwrap().pop().unwrap();
        if net.world.rank == 2 {
            return None;
        }
        let mut buffers = vec![vec![1.0f32; 100_000]];
        for _ in 0..3 {
            group.data.run(Job::AllReduce(Reduce::Sum), &mut buffers);
        }
        group.data.check().err().map(|e| e.to_string())
    });
    assert_eq!(found[0].as_deref(), Some("rank 2 is gone"));
    assert_eq!(found[1].as_deref(), Some("rank 0 is gone"), "the hub, which gave up");
}

#[test]
fn who_does_not_belong_to_the_trial_is_turned_away() {
    let found = on_loopback(2, |net| {
        let mut lobby = Lobby::open(&net).unwrap();
        if net.world.rank == 1 {
            let foreign =
                Net { key: 8, world: net.world.clone(), patience: net.patience, wires: vec![], hosts: vec![] };
            let lobby = Lobby { net: &foreign, listener: lobby.listener, book: lobby.book, early: HashMap::new() };
            let _kept = lobby.visit(0, 1, 1).unwrap();
            let _ = net.told(vec![]);
            return String::new();
        }
        let error = lobby.receive(1, 1, 1).unwrap_err().to_string();
        net.told(vec![1]).unwrap();
        error
    });
    assert!(found[0].contains("does not belong here"), "{found:?}");
}
