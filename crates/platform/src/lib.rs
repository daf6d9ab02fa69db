//! This crate contains the parts that both services share. Start reading at [`bucket`] and [`topic`].
//!
//! - [`bucket`] stores images and predictions, in Cloud Storage or in a folder.
//! - [`topic`] announces images and delivers the announcements, with Pub/Sub or SQLite.
//! - [`http`] has the error responses, the middleware, the health endpoints and the server.
//! - [`cpu`] runs CPU work on a bounded thread pool, away from the async workers.
//! - [`buffer`] has a buffer whose memory goes back to the system at once.
//! - [`scratch`] keeps the buffers of a thread from one job to the next.
//! - [`memory_budget`] bounds the memory that concurrent jobs reserve.
//! - [`config`] parses flags and environment variables, and reports all problems at once.
//! - [`telemetry`] has the log and the metrics.
//! - [`shutdown`] runs a program until SIGTERM or SIGINT, and ends it in time.
//! - [`clock`] formats timestamps.
//! - [`private_folder`] creates folders that only the user of the service may read.
//! - [`text`] cuts and escapes text from outside.
//! - [`mod@panic`] extracts the message of a caught panic.
//! - `service` has the port, host and bucket settings of the programs `preprocess` and `classify`.
//! - `cloud` has the settings for calls to Google Cloud.
//! - `emulators` starts emulators of Google Cloud for tests.
//!
//! The feature `cloud` enables the code for Google Cloud. The feature `testing` enables test doubles and
//! conformance suites. No code in this crate depends on images or models.

pub mod bucket;
pub mod buffer;
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
pub mod private_folder;
pub mod scratch;
#[cfg(feature = "cloud")]
pub mod service;
pub mod shutdown;
pub mod telemetry;
pub mod text;
pub mod topic;
