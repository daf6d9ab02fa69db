//! From an ONNX file to burn code, at build time.
//!
//! A model is a folder: `models/<name>/model.toml` ([`spec`]), its labels ([`labels`]) and its ONNX
//! file. A build asks [`locate`] which model and which file it is, and [`fetch`] gets the file once if
//! it is not there. [`graph`] cleans the graph up (batch normalisation folded, shapes constant, batch
//! dynamic, channels first), [`codegen`] fuses chains of convolutions and turns it into Rust and weights, and [`build_script`] does all
//! of it for a `build.rs`. The same steps stand behind the command `model-import` ([`cli`]).
//!
//! Start reading in [`build_script`], then [`graph`]. Nothing here runs in a service.

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
