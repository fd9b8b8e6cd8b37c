//! Error rates on simulated machines: of the verdicts of `centime check`, and of the answers of `centime run`. The figures:
//! `cargo test --release --test simulated -- --nocapture --test-threads 1`.

mod answers;
mod machines;
mod verdicts;
