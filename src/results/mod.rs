//! Results: the journal that loses nothing, and the table written as CSV, Parquet and JSON. The only room with polars.

pub mod record;
pub mod run;
pub mod table;
