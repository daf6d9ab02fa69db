//! The decoder from outside.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod corpus;
mod damage;
mod exact;
mod files;
mod kinds;
mod naive;
mod property;
#[cfg(feature = "compare")]
mod turbo;
