//! Service 2: an event or a request in, a prediction out.
//!
//! Start reading at [`app`]: it puts the parts together. A request comes in through `routes`, which
//! asks `service` (read the object, or take the bytes) or, for an announced image, `event` (which of
//! them are classified, each once: `in_flight`). `records` writes the prediction down and publishes
//! it. [`pixels`] makes the square crop that the network wants, [`engine`] queues and batches crops
//! and runs them on threads of its own, [`network`] is the code made from the ONNX file at build time,
//! and [`classes`] turns its outputs into labels with probabilities. [`outcome`] is the table that
//! says which event is acknowledged. [`backend`] is what arithmetic the network runs on, in numbers of which
//! [`precision`], and [`gpu`] decides whether that is a GPU.
//!
//! It knows nothing of how uploads are decoded for storage, nor of who publishes events.

#[cfg(not(any(feature = "flex", feature = "ndarray")))]
compile_error!(
    "classify needs a backend to run its network on: switch on at least one of the cargo features \
     `flex` (the default), `ndarray`, `wgpu` and `cuda`"
);

pub mod app;
pub mod backend;
pub mod classes;
pub mod config;
pub mod engine;
mod error;
mod event;
pub mod gpu;
mod in_flight;
pub mod network;
pub mod outcome;
pub mod pixels;
pub mod precision;
mod pull;
mod records;
mod routes;
mod service;
#[cfg(feature = "cloud")]
mod standalone;

pub use app::{Application, Parts};
pub use config::Settings;
#[cfg(feature = "cloud")]
pub use standalone::Config;
