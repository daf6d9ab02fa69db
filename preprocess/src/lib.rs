//! The service preprocess converts uploads to upright RGB JPEGs, stores the JPEGs in a bucket and announces
//! them on a topic.
//!
//! Start reading at [`Application`], then follow an upload: `routes::upload` receives it, `upload_service`
//! processes, stores and announces it, and [`image`] decodes, resizes and encodes it.
//!
//! - [`Config`] and [`Settings`]: the configuration, read from flags and environment variables.
//! - [`image`]: functions without I/O that convert uploaded bytes to the stored JPEG.
//! - `announcement`: creates the message that announces a stored image.
//! - `upload_service`: processes, stores and announces uploads, and looks up predictions.
//! - `routes`: `POST /preprocess` and `GET /predictions/{id}`.
//!
//! The service knows no models and no labels. It reads predictions from the bucket, where the other service,
//! classify, writes them.

mod announcement;
mod app;
mod config;
mod error;
pub mod image;
mod routes;
#[cfg(feature = "cloud")]
mod standalone;
mod trace_context;
mod upload_service;

pub use announcement::{announce_again, announced_image_id};
pub use app::Application;
pub use config::Settings;
#[cfg(feature = "cloud")]
pub use standalone::Config;
