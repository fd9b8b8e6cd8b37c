//! Results: the journal that loses nothing, and the table written as CSV, Parquet and JSON. The only room with polars.

mod error;
pub(crate) mod files;
pub(crate) mod history;
pub(crate) mod journal;
pub(crate) mod lock;
pub(crate) mod merge;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod table;
pub(crate) mod tensorboard;
pub(crate) mod write;

pub use error::ResultsError;
