//! Simulated machines: what they do to the time of a launch. Twelve profiles, none of which a rule was tuned on.

use centime::internal::stats::SplitMix64;

/// Draws for a simulation.
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ 0x1234_5678))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.draw()
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// Box & Muller 1958.
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// What a machine does to the logarithm of a launch's time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// Noise of each launch.
    pub(crate) noise: f64,
    /// Drift from launch to launch, AR(1): standard deviation, and how much of it stays.
    pub(crate) drift: (f64, f64),
    /// Launches that are disturbed: how many of them, and by how much at most.
    pub(crate) spikes: (f64, f64),
    /// Levels that jump: chance a launch, standard deviation.
    pub(crate) steps: (f64, f64),
    /// Interference of a period of four launches.
    pub(crate) period: f64,
    /// The first launches are slower, by this much and with this decay a launch.
    pub(crate) start: (f64, f64),
    /// A neighbour that comes and goes: chance to come, chance to go, slowdown.
    pub(crate) neighbour: (f64, f64, f64),
    /// Two clock speeds that launches fall into: chance of the slower, how much slower.
    pub(crate) clocks: (f64, f64),
    /// Student's t with two degrees of freedom.
    pub(crate) heavy: f64,
    /// Layout of memory drawn for each launch.
    pub(crate) layout_of_launch: f64,
    /// Layout of code drawn for each build: the same for all launches of one program.
    pub(crate) layout_of_build: f64,
    /// Drift that goes one way: share a launch.
    pub(crate) ramp: f64,
}

/// A machine as it goes on, launch after launch.
pub(crate) struct Course {
    machine: Machine,
    drift: f64,
    level: f64,
    busy: bool,
    launches: u32,
}

impl Course {
    pub(crate) fn new(machine: Machine, r: &mut Random) -> Self {
        Self { machine, drift: machine.drift.0 * r.normal(), level: 0.0, busy: false, launches: 0 }
    }

    /// What it adds to the logarithm of the next launch's time.
    pub(crate) fn launch(&mut self, r: &mut Random) -> f64 {
        let m = &self.machine;
        let (sd, stays) = m.drift;
        self.drift = stays * self.drift + sd * (1.0 - stays * stays).sqrt() * r.normal();
        if r.uniform() < m.steps.0 {
            self.level += m.steps.1 * r.normal();
        }
        self.busy = if self.busy { r.uniform() >= m.neighbour.1 } else { r.uniform() < m.neighbour.0 };
        let i = self.launches;
        self.launches += 1;
        let mut t = self.drift + self.level + m.noise * r.normal() + m.layout_of_launch * r.normal();
        t += if r.uniform() < m.spikes.0 { m.spikes.1 * r.uniform() } else { 0.0 };
        t += if i % 4 < 2 { m.period } else { 0.0 };
        t += m.start.0 * m.start.1.powi(i as i32);
        t += if self.busy { m.neighbour.2 } else { 0.0 };
        t += if r.uniform() < m.clocks.0 { m.clocks.1 } else { 0.0 };
        t += m.heavy * r.normal() / (-r.uniform().ln()).sqrt().max(1e-3);
        t + m.ramp * f64::from(i)
    }
}

/// The twelve, by name.
pub(crate) fn profiles() -> Vec<(&'static str, Machine)> {
    let m = Machine::default();
    vec![
        ("quiet", Machine { noise: 0.003, ..m }),
        ("hosted", Machine { noise: 0.012, drift: (0.015, 0.9), spikes: (0.05, 0.1), ..m }),
        ("bad hosted", Machine { noise: 0.02, drift: (0.03, 0.9), spikes: (0.1, 0.2), ..m }),
        ("period of four", Machine { noise: 0.01, period: 0.08, ..m }),
        ("levels that jump", Machine { noise: 0.01, steps: (0.1, 0.1), ..m }),
        ("slow start", Machine { noise: 0.01, start: (0.3, 0.8), ..m }),
        ("a neighbour", Machine { noise: 0.01, neighbour: (0.05, 0.1, 0.25), ..m }),
        ("two clocks", Machine { noise: 0.006, clocks: (0.15, 0.06), ..m }),
        ("heavy tails", Machine { noise: 0.005, heavy: 0.006, ..m }),
        ("layout of launches", Machine { noise: 0.008, layout_of_launch: 0.01, ..m }),
        ("a ramp", Machine { noise: 0.01, ramp: 0.004, ..m }),
        (
            "all at once",
            Machine {
                noise: 0.008,
                drift: (0.01, 0.8),
                spikes: (0.03, 0.2),
                steps: (0.02, 0.05),
                period: 0.01,
                start: (0.1, 0.7),
                neighbour: (0.02, 0.2, 0.1),
                ..m
            },
        ),
    ]
}
