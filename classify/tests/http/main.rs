//! The service from outside, over HTTP on a free port.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

mod announcements;
mod auth;
mod classify;
mod lost;
mod overload;
mod property;
mod push;
mod results;
mod rig;
