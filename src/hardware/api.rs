//! What an API asks for tokens.

use super::date::Date;
use crate::units::UsdPerMillionTokens;

/// One model's price at one date.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    pub provider: String,
    pub model: String,
    pub input: UsdPerMillionTokens,
    pub output: UsdPerMillionTokens,
    pub date: Date,
    /// The source does not date it exactly.
    pub approximate: bool,
    /// No source at hand confirms the price.
    pub unverified: bool,
    pub source: String,
    pub notes: String,
}
