//! How often `centime run` names a wrong cheapest cell, on simulated machines: rounds x cells as a plan lays them out, on each of the
//! twelve profiles.
//!
//! Three statements can be wrong: "X makes the cheapest tokens" where another cell is as cheap (at most 5 % of runs); "one of these k"
//! where none of them is the cheapest (at most 5 %); and none at all where one cell is cheaper by a tenth, which costs only time.

use super::machines::{Course, Machine, Random, profiles};
use centime::internal::comparison::{Cheapest, cheapest_of_run};
use centime::internal::cost::Estimate;
use centime::internal::hardware::Kind;
use centime::internal::plan::order_of_round;
use centime::internal::stats::median;
use std::thread;

const RUNS: u64 = 2000;
const CELLS: [usize; 4] = [2, 4, 12, 24];
/// The logarithm of a difference of ten per cent.
const TENTH: f64 = 0.0953;

/// What a run says of cells with these logarithms of their cost, where launches take what the machine makes of them.
fn answer(machine: &Machine, rounds: u32, cells: &[f64], seed: u64) -> Cheapest {
    let r = &mut Random::new(seed);
    let mut course = Course::new(*machine, r);
    // Which cell stands where in the plan is drawn, as the plan does.
    let mut planned: Vec<usize> = (0..cells.len()).collect();
    for i in (1..planned.len()).rev() {
        planned.swap(i, (r.uniform() * (i + 1) as f64) as usize);
    }
    let mut launches: Vec<Vec<f64>> = vec![Vec::new(); cells.len()];
    for round in 0..rounds {
        for place in order_of_round(cells.len(), seed, round) {
            let cell = planned[place];
            launches[cell].push((cells[cell] + course.launch(r)).exp());
        }
    }
    // The interval is not looked at within a run: its cells are compared launch by launch.
    let cost = |all: &Vec<f64>| median(all).and_then(|m| Estimate::with_interval(m, m, m));
    let costs: Vec<Option<Estimate>> = launches.iter().map(cost).collect();
    cheapest_of_run(&costs, &launches, &Kind::VirtualMachine.spread()).unwrap()
}

/// Shares of runs.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// That name one cell where two are equally cheap and the others dearer by a third.
    falsely_alone: f64,
    /// That name some, and not the one that is cheaper than the others by nothing that could be seen.
    cheapest_left_out: f64,
    /// That name the one that is cheaper by a tenth.
    found: f64,
}

fn rates(machine: &Machine, rounds: u32, cells: usize) -> Rates {
    let share = |costs: &[f64], counts: &dyn Fn(&Cheapest) -> bool| {
        let seeds = 0..RUNS;
        seeds.filter(|seed| counts(&answer(machine, rounds, costs, *seed))).count() as f64 / RUNS as f64
    };
    let from = |first: f64, others: f64| {
        let mut costs = vec![others; cells];
        costs[0] = first;
        costs
    };
    let mut two = from(0.0, 0.3);
    two[1] = 0.0;
    Rates {
        falsely_alone: share(&two, &|c| c.tied.is_empty()),
        cheapest_left_out: share(&from(0.0, 0.0), &|c| c.best != 0 && !c.tied.contains(&0)),
        found: share(&from(0.0, TENTH), &|c| c.best == 0 && c.tied.is_empty()),
    }
}

/// The rates of all profiles, printed, and by profile and number of cells.
fn of_all_profiles(rounds: u32) -> Vec<(&'static str, usize, Rates)> {
    let profiles = profiles();
    let all: Vec<(&str, Vec<Rates>)> = thread::scope(|s| {
        let of = |m: Machine| move || CELLS.map(|cells| rates(&m, rounds, cells)).to_vec();
        let started: Vec<_> = profiles.iter().map(|(name, m)| (*name, s.spawn(of(*m)))).collect();
        started.into_iter().map(|(name, t)| (name, t.join().unwrap())).collect()
    });
    let rows: Vec<_> =
        all.into_iter().flat_map(|(name, r)| CELLS.into_iter().zip(r).map(move |(k, r)| (name, k, r))).collect();
    for (name, cells, r) in &rows {
        let [alone, left_out, found] = [r.falsely_alone, r.cheapest_left_out, r.found].map(|x| x * 100.0);
        println!(
            "{rounds} rounds, {cells:2} cells, {name:20} falsely alone {alone:4.1} %  cheapest left out {left_out:4.1} %  10 % found {found:5.1} %"
        );
    }
    rows
}

#[test]
fn in_three_rounds_at_most_one_answer_of_twenty_is_wrong_on_every_simulated_machine() {
    let wrong = |r: &Rates| r.falsely_alone > 0.05 || r.cheapest_left_out > 0.05;
    let faults: Vec<_> = of_all_profiles(3).into_iter().filter(|(.., r)| wrong(r)).collect();
    assert!(faults.is_empty(), "{faults:?}");
}

/// Two rounds are made where there is no time for three. One machine breaks them: spikes of up to 20 % in a tenth of launches, of two
/// cells alone.
#[test]
fn in_two_rounds_as_many_are_but_for_two_cells_on_a_bad_machine() {
    let most = |name: &str, cells: usize| if (name, cells) == ("bad hosted", 2) { 0.07 } else { 0.05 };
    let wrong = |(name, cells, r): &(&str, usize, Rates)| r.falsely_alone.max(r.cheapest_left_out) > most(name, *cells);
    let faults: Vec<_> = of_all_profiles(2).into_iter().filter(wrong).collect();
    assert!(faults.is_empty(), "{faults:?}");
}

/// Without pairs of one round, what the machine does between rounds would hide what the cells differ by.
#[test]
fn a_difference_of_a_tenth_is_found_where_the_machine_drifts_by_as_much() {
    let of = |wanted: &str| profiles().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    for (name, least) in [("quiet", 0.99), ("period of four", 0.95), ("a ramp", 0.95), ("levels that jump", 0.8)] {
        let found = rates(&of(name), 3, 2).found;
        assert!(found >= least, "{name}: {found}");
    }
}
