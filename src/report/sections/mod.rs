//! The report's sections: a file each and a line in [`SECTIONS`]. They arrange what `cost` and `comparison` compute, and
//! compute nothing.

mod accounting;
mod answer;
pub(super) mod apis;
mod energy;
mod environment;
mod gpus;
pub(super) mod learning;
mod levers;
mod memory;
mod method;
mod pictures;
mod profile;
mod projection;
mod reproduce;
mod requests;
mod results;
mod scaling;
pub(super) mod sensitivity;
mod training;

pub(crate) use answer::closing;
pub(crate) use results::{compact, table};

use super::charts::DrawError;
use super::document::{Block, Section};
use super::facts::Facts;

/// A section: its anchor, its heading, and what stands under it; without blocks it is left out.
struct Definition {
    id: &'static str,
    title: &'static str,
    build: fn(&Facts) -> Result<Vec<Block>, DrawError>,
}

const SECTIONS: &[Definition] = &[
    Definition { id: "answer", title: "The answer", build: |f| Ok(answer::blocks(f)) },
    Definition { id: "learning", title: "What a loss costs", build: |f| Ok(learning::blocks(f)) },
    Definition { id: "results", title: "Results", build: |f| Ok(results::blocks(f)) },
    Definition { id: "charts", title: "Charts", build: pictures::blocks },
    Definition { id: "scaling", title: "One device against several", build: |f| Ok(scaling::blocks(f)) },
    Definition { id: "requests", title: "What requests cost", build: |f| Ok(requests::blocks(f)) },
    Definition { id: "training", title: "What training costs", build: |f| Ok(training::blocks(f)) },
    Definition { id: "levers", title: "Memory against time", build: |f| Ok(levers::blocks(f)) },
    Definition { id: "energy", title: "Energy", build: |f| Ok(energy::blocks(f)) },
    Definition { id: "gpus", title: "GPUs", build: |f| Ok(gpus::blocks(f)) },
    Definition { id: "sensitivity", title: "Sensitivity", build: sensitivity::blocks },
    Definition { id: "apis", title: "Against APIs", build: apis::blocks },
    Definition { id: "profile", title: "Where the money goes", build: |f| Ok(profile::blocks(f)) },
    Definition { id: "memory", title: "Memory", build: |f| Ok(memory::blocks(f)) },
    Definition { id: "projection", title: "Against the projection", build: |f| Ok(projection::blocks(f)) },
    Definition { id: "accounting", title: "Every requested trial", build: |f| Ok(accounting::blocks(f)) },
    Definition { id: "environment", title: "Machine", build: |f| Ok(environment::blocks(f)) },
    Definition { id: "method", title: "Method", build: |f| Ok(method::blocks(f)) },
    Definition { id: "reproduce", title: "Reproduce", build: |f| Ok(reproduce::blocks(f)) },
];

/// Every section that has something to say.
///
/// # Errors
/// A chart that cannot be drawn.
pub(super) fn sections(facts: &Facts) -> Result<Vec<Section>, DrawError> {
    let mut all = Vec::new();
    for d in SECTIONS {
        let blocks = (d.build)(facts)?;
        if !blocks.is_empty() {
            all.push(Section { id: d.id, title: d.title, blocks });
        }
    }
    Ok(all)
}
