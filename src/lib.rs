//! The whole pipeline in one process, on one machine, without any cloud.
//!
//! [`Pipeline`] puts the two services beside each other, exactly as they run on Cloud Run, and gives
//! them a bucket in a folder and a topic in an SQLite file. It knows nothing of how an image is
//! decoded or classified; start reading at [`Pipeline::build`].

mod config;
mod pipeline;

pub use config::Config;
pub use pipeline::Pipeline;
