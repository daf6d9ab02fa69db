//! The service from outside: its pictures through `image::process`, its answers over HTTP.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod any_bytes;
mod colours;
mod costs;
mod formats;
mod hand_made;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(target_os = "linux")]
mod overload;
mod pictures;
mod predictions;
#[cfg(target_os = "linux")]
mod public_files;
mod refusals;
mod support;
#[cfg(feature = "turbo")]
mod turbo;
mod uploads;
mod waiting;
