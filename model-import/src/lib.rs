//! Converts an ONNX image classifier to burn code at build time.
//!
//! A model is a folder: `models/<name>/` holds `model.toml` ([`spec`]), the labels ([`labels`]) and the
//! ONNX file. A build goes through these modules in order:
//!
//! 1. [`locate`] chooses the model and finds its ONNX file; [`fetch`] downloads the file if it is missing.
//! 2. [`graph`] simplifies the graph: it folds batch normalisation into convolutions, makes all
//!    dimensions constant except the batch, and moves the channels before height and width.
//! 3. [`model`] reads the labels and checks that they fit the graph.
//! 4. [`codegen`] fuses each chain, a sequence of layers such as convolutions, into one operator. It then
//!    writes Rust code and weights.
//!
//! [`build_script`] runs these steps for a `build.rs`, and [`cli`] for the command `model-import`.
//! Start reading in [`build_script`], then [`graph`]. Nothing in this crate runs in a service.

pub mod build_script;
mod chain_op;
pub mod cli;
pub mod codegen;
mod error;
pub mod fetch;
pub mod graph;
pub mod labels;
pub mod locate;
pub mod model;
pub mod spec;

pub use error::Error;
