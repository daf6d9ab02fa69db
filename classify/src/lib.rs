//! Service 2, which classifies images.
//!
//! A request contains an image, or the path of an image in the bucket. An event, which Pub/Sub or Eventarc
//! delivers, announces a new image in the bucket. The prediction of an image in the bucket is stored in the
//! bucket as well.
//!
//! Start reading at `app`, which assembles, starts and stops the service. `routes` receives requests and
//! pushed events, and `pull` receives pulled events. [`announcements`] handles events: it classifies each
//! announced image once, and acknowledges or refuses each event. `queue_permits` decides which images may enter
//! the queues. `service` classifies one image, from the bucket or from the body of a request. [`pixels`]
//! decodes the image into the crop that the network needs. [`engine`] collects crops in batches and runs
//! the network on them, on separate threads. [`model`] contains the network, which the build generates from the
//! ONNX file, and the network's labels. [`backend`]
//! lists the burn backends, [`precision`] lists the float types of the network, and [`gpu`] opens the GPU.
//!
//! The crate does not depend on service 1, which stores uploads and publishes the events that announce them.

#[cfg(not(any(feature = "flex", feature = "ndarray")))]
compile_error!(
    "classify needs a backend to run its network on: enable at least one of the cargo features `flex` (the \
     default), `ndarray`, `wgpu` and `cuda`"
);

pub mod announcements;
mod app;
pub mod backend;
mod config;
pub mod engine;
mod enlargement;
mod error;
pub mod gpu;
mod json;
pub mod model;
pub mod pixels;
pub mod precision;
mod pull;
mod queue_permits;
mod routes;
mod service;
#[cfg(feature = "cloud")]
mod standalone;

pub use app::{Application, Parts};
pub use config::Settings;
#[cfg(feature = "cloud")]
pub use standalone::Config;

/// Version of the service, for the response of `/ready` and for the metrics.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
