//! Results: the journal that loses nothing, and the table written as CSV, Parquet and JSON. The only room with polars.

mod error;
pub mod files;
pub mod history;
pub mod journal;
pub mod lock;
pub mod merge;
pub mod record;
pub mod run;
pub mod table;
pub mod write;

pub use error::ResultsError;
