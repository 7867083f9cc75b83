//! What several of the example plugins need.
#![forbid(unsafe_code)]

pub mod csv;
pub mod file;
