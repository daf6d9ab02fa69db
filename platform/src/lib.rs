//! What both services stand on. Start reading at [`contract`]: it is what the two services share.
//!
//! - [`contract`]: the JSON shapes and the object layout, pure data
//! - [`bucket`]: where images and predictions are kept (disk, memory)
//! - [`topic`]: how an image is announced, and the push that follows (SQLite)
//! - [`cpu`]: the one door from async code to rayon
//! - [`http`]: problem details, the middleware stack, health, serving and draining
//! - [`telemetry`]: log and metrics
//! - [`config`]: parsing that lists every problem at once
//!
//! It knows nothing of images or models.

pub mod bucket;
mod clock;
pub mod config;
pub mod contract;
pub mod cpu;
pub mod http;
pub mod telemetry;
pub mod topic;
