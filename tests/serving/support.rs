//! Load without a scenario.

use crate::mock::Mock;
use centime::internal::load::{
    Api, Client, Dialect, Job, Lengths, Pace, Record, Rules, Served, Sizing, Slo, Stretch, Target, Traffic, run, served,
};
use std::sync::Arc;

pub(crate) fn target(mock: &Mock) -> Target {
    Target { endpoint: mock.endpoint(), model: "mock".into(), api: Api::Chat, api_key_env: None }
}

pub(crate) fn traffic(pace: Pace, prompt: u32, answer: u32, timeout_seconds: f64) -> Traffic {
    let (prompt, answer) = (Lengths::Fixed(prompt), Lengths::Fixed(answer));
    let (prefix, tokenizer, trace, search) = (None, None, None, None);
    Traffic { pace, prompt, answer, timeout_seconds, prefix, slo: Slo::default(), tokenizer, trace, search }
}

/// A window of so many seconds after so many requests.
pub(crate) fn rules(warm_up: u32, seconds: f64) -> Rules {
    Rules { warm_up: Some(warm_up), at_a_time: 1, min_seconds: seconds, max_seconds: seconds, precision: 0.0 }
}

pub(crate) struct Loaded {
    pub(crate) records: Vec<Record>,
    pub(crate) window: (f64, f64),
    pub(crate) slo: Slo,
}

impl Loaded {
    pub(crate) fn served(&self) -> Served {
        served(&self.records, self.window, &self.slo).expect("somebody was answered")
    }

    /// Requests that were due in the window.
    pub(crate) fn due(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|r| r.due >= self.window.0 && r.due < self.window.1)
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap()
}

pub(crate) fn load(target: &Target, traffic: Traffic, rules: Rules) -> Loaded {
    let slo = traffic.slo;
    let job = Job {
        client: Arc::new(Client::new(target, None).unwrap()),
        traffic,
        dialect: Dialect::Open,
        sizing: Sizing { overhead: 10.0, per_word: 1.0 },
        tokens: None,
        trace: Arc::default(),
        seed: 5,
        salt: 7,
    };
    let mut stretch = Stretch::new(rules);
    let records = runtime().block_on(run(&job, &mut stretch, &mut |_, _| true)).unwrap();
    Loaded { records, window: stretch.window().unwrap(), slo }
}
