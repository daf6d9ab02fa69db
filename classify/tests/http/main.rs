//! Tests of the service from outside, over HTTP on a free port.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers may panic")]

mod announcements;
mod auth;
mod classify;
mod lost_gpu;
mod overload;
mod property;
mod push;
mod results;
mod rig;
