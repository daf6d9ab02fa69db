//! Service 2: receives an event or a request and returns a prediction.
//!
//! Start reading at `app`, which assembles the parts. A request arrives in `routes`. `service` reads the
//! object, or uses the bytes of the request; an announced image goes through [`announcements`], which
//! classifies each image once and acknowledges or refuses its event. [`pixels`] decodes the image into the
//! square crop that the network needs. [`engine`] queues and batches crops and runs the network on threads of
//! its own. [`model`] is the network generated from the ONNX file, with its labels. [`backend`] selects the
//! burn backend, [`precision`] its float type, and [`gpu`] opens the GPU.
//!
//! The crate knows neither how uploads are decoded for storage nor who publishes events.

#[cfg(not(any(feature = "flex", feature = "ndarray")))]
compile_error!(
    "classify needs a backend to run its network on: enable at least one of the cargo features `flex` (the \
     default), `ndarray`, `wgpu` and `cuda`"
);

pub mod announcements;
mod app;
pub mod backend;
mod config;
mod defaults;
pub mod engine;
mod error;
pub mod gpu;
pub mod model;
pub mod pixels;
pub mod precision;
mod pull;
mod routes;
mod service;
#[cfg(feature = "cloud")]
mod standalone;

pub use app::{Application, Parts};
pub use config::Settings;
#[cfg(feature = "cloud")]
pub use standalone::Config;

/// Version in the response of `/ready` and in the metrics.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
