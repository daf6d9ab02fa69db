//! This crate runs the whole pipeline in one process, on one machine and without a cloud account.
//!
//! [`Pipeline`] runs the same two services that run on Cloud Run. The bucket is a folder, and the topic is an
//! SQLite file. Start reading at [`Pipeline::build`].

mod config;
mod data_dir_lock;
mod pipeline;
mod stored_size;
mod sweep;

pub use config::Config;
pub use pipeline::Pipeline;
