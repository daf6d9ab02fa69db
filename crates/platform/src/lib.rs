//! What both services stand on. Start reading at [`bucket`] and [`topic`].
//!
//! - [`bucket`]: where images and predictions are kept (Cloud Storage, disk, memory)
//! - [`topic`]: how an image is announced, and what follows: push or pull (Pub/Sub, SQLite)
//! - [`clock`]: timestamps as text
//! - `cloud`: which project, which emulators (all of Google Cloud is behind the feature `cloud`)
//! - [`cpu`]: the one door from async code to rayon
//! - [`memory_budget`]: memory that is asked for before it is used
//! - [`http`]: problem details, the middleware stack, health, serving and draining
//! - [`panic`]: the message of a caught panic
//! - [`telemetry`]: log and metrics
//! - [`config`]: parsing that lists every problem at once
//!
//! It knows nothing of images or models.

pub mod bucket;
pub mod clock;
#[cfg(feature = "cloud")]
pub mod cloud;
pub mod config;
pub mod cpu;
pub mod http;
pub mod memory_budget;
pub mod panic;
#[cfg(feature = "cloud")]
pub mod service;
pub mod telemetry;
#[cfg(all(feature = "cloud", any(test, feature = "testing")))]
pub mod testing;
pub mod topic;
