//! Service 1: an upload in, one upright RGB JPEG out, stored and announced.
//!
//! Start reading at [`Application`], then follow an upload: `routes::upload` takes it in, `ingest`
//! brings it through, [`image`] makes the picture.
//!
//! - [`Config`], [`Settings`]: what can be set, from flags and environment
//! - [`image`]: bytes to picture, pure functions
//! - `ingest`: picture → bucket → topic, and what a retry finds
//! - `routes`: `POST /preprocess`, `GET /predictions/{id}`
//!
//! It knows nothing of models and labels; what became of an image it reads from the bucket.

mod app;
mod config;
mod error;
pub mod image;
mod ingest;
mod routes;
#[cfg(feature = "cloud")]
mod standalone;
mod trace_context;

pub use app::Application;
pub use config::Settings;
#[cfg(feature = "cloud")]
pub use standalone::Config;
