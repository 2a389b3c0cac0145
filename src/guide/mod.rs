//! Pages for those who know something else already.

#[doc = include_str!("python.md")]
pub mod python {}

#[doc = include_str!("lines_codec.md")]
pub mod lines_codec {}
