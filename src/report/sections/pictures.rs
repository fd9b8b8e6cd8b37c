//! The charts.

use crate::report::charts::{DrawError, charts};
use crate::report::document::Block;
use crate::report::facts::Facts;

pub(super) fn blocks(facts: &Facts) -> Result<Vec<Block>, DrawError> {
    Ok(charts(facts)?.into_iter().map(Block::Chart).collect())
}
