//! Tests the public interface.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers fail by panicking")]

mod accuracy;
mod cmyk;
mod corpus;
mod damage;
mod files;
mod naive;
mod progressive;
mod progressive_writer;
mod reference;
mod scans;
mod supported;
#[cfg(feature = "compare")]
mod turbo;
