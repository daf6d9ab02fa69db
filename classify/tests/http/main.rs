//! Tests that start the service on a free port and send HTTP requests to it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers may panic")]

mod announcements;
mod auth;
mod classify;
mod damage;
mod echo;
mod heads;
mod limits;
mod lost_gpu;
mod models;
mod overload;
mod property;
mod push;
mod results;
mod rig;
