//! The whole pipeline in one process, on one machine, without a cloud account.
//!
//! [`Pipeline`] runs the two services as Cloud Run does, with a bucket in a folder and a topic in an SQLite
//! file. Start reading at [`Pipeline::build`].

mod config;
mod pipeline;

pub use config::Config;
pub use pipeline::Pipeline;
