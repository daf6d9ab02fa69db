//! The parts that both services are built on. Start reading at [`bucket`] and [`topic`].
//!
//! - [`bucket`]: stores images and predictions (Cloud Storage, a folder)
//! - [`topic`]: announces images and delivers the announcements (Pub/Sub, SQLite)
//! - [`http`]: error responses, middleware, health endpoints, the server
//! - [`cpu`]: runs CPU work on a bounded thread pool, off the async workers
//! - [`memory_budget`]: bounds the memory of concurrent jobs
//! - [`config`]: parses flags and environment, and reports every problem at once
//! - [`telemetry`]: log and metrics
//! - [`shutdown`]: turns SIGTERM and SIGINT into a cancellation
//! - [`clock`]: formats timestamps
//! - [`mod@panic`]: the message of a caught panic
//! - `service`: the settings of a service that runs as a program of its own
//! - `cloud`: access to Google Cloud
//! - `emulators`: starts emulators of Google Cloud for tests
//!
//! Everything about Google Cloud is behind the feature `cloud`, test doubles and conformance suites are
//! behind `testing`. This crate knows nothing about images or models.

pub mod bucket;
pub mod clock;
#[cfg(feature = "cloud")]
pub mod cloud;
pub mod config;
pub mod cpu;
#[cfg(all(feature = "cloud", any(test, feature = "testing")))]
pub mod emulators;
pub mod http;
pub mod memory_budget;
pub mod panic;
#[cfg(feature = "cloud")]
pub mod service;
pub mod shutdown;
pub mod telemetry;
pub mod topic;
