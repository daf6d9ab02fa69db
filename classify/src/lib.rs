//! Service 2: an event or a request in, a prediction out.
//!
//! Start reading at [`app`]: it puts the parts together. A request comes in through `routes`, which
//! asks `service` (read the object, or take the bytes; write the prediction down). [`pixels`] makes
//! the square crop that the network wants, [`engine`] queues and batches crops and runs them on
//! threads of its own, [`network`] is the code made from the ONNX file at build time, and
//! [`classes`] turns its outputs into labels with probabilities. [`outcome`] is the table that says
//! which push is acknowledged. [`backend`] is what arithmetic the network runs on.
//!
//! It knows nothing of how uploads are decoded for storage, nor of who publishes events.

#[cfg(not(any(feature = "flex", feature = "ndarray")))]
compile_error!(
    "classify needs a backend to run its network on: switch on at least one of the cargo features \
     `flex` (the default) and `ndarray`"
);

pub mod app;
pub mod backend;
pub mod classes;
pub mod config;
pub mod engine;
mod error;
pub mod network;
pub mod outcome;
pub mod pixels;
mod routes;
mod service;

pub use app::Application;
pub use config::{Config, Settings};
