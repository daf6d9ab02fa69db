//! Converts an ONNX image classifier to burn code at build time.
//!
//! A model is a folder: `models/<name>/` holds `model.toml` ([`spec`]), the labels ([`labels`]) and the
//! ONNX file. A build goes through these modules in order:
//!
//! 1. [`locate`] chooses the model and finds its ONNX file; [`fetch`] downloads the file if it is missing.
//! 2. [`graph`] simplifies the graph: it folds batch normalisation into convolutions, makes all
//!    dimensions constant except the batch, and moves the channels before height and width.
//! 3. [`model`] reads the labels and checks that they fit the graph. [`output`] decides what the outputs are.
//! 4. `codegen` fuses each chain, a sequence of layers such as convolutions, into one operator. It then
//!    writes Rust code and weights.
//!
//! `build_script` runs these steps for a `build.rs`. Start reading there, then in [`graph`]. Nothing in this crate
//! runs in a service.
//!
//! The feature `codegen` enables the modules `build_script` and `codegen`, for build scripts. The feature `program`
//! enables `add`, `check` and `cli`, the command `model-import`: `add` makes the folder of a model. The feature
//! `compare` lets the command compare a simplified graph with the original.

#[cfg(feature = "program")]
pub mod add;
#[cfg(feature = "codegen")]
pub mod build_script;
#[cfg(feature = "codegen")]
mod chain_op;
#[cfg(feature = "program")]
pub mod check;
#[cfg(feature = "program")]
pub mod cli;
#[cfg(feature = "codegen")]
pub mod codegen;
#[cfg(feature = "compare")]
pub mod compare;
#[cfg(feature = "compare")]
pub mod compiled;
mod error;
pub mod fetch;
pub mod graph;
pub mod labels;
pub mod locate;
pub mod model;
pub mod output;
pub mod spec;

pub use error::Error;
