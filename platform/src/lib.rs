//! What both services stand on. Start reading at [`contract`]: it is what the two services share.
//!
//! - [`contract`]: the JSON shapes and the object layout, pure data
//! - [`bucket`]: where images and predictions are kept (Cloud Storage, disk, memory)
//! - [`topic`]: how an image is announced, and what follows: push or pull (Pub/Sub, SQLite)
//! - `cloud`: which project, which emulators (all of Google Cloud is behind the feature `cloud`)
//! - [`cpu`]: the one door from async code to rayon
//! - [`memory`]: memory that is asked for before it is used
//! - [`http`]: problem details, the middleware stack, health, serving and draining
//! - [`telemetry`]: log and metrics
//! - [`config`]: parsing that lists every problem at once
//!
//! It knows nothing of images or models.

pub mod bucket;
mod clock;
#[cfg(feature = "cloud")]
pub mod cloud;
pub mod config;
pub mod contract;
pub mod cpu;
pub mod http;
pub mod memory;
pub mod telemetry;
#[cfg(all(feature = "cloud", any(test, feature = "testing")))]
pub mod testing;
pub mod topic;
