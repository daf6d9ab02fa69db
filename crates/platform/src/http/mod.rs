//! HTTP as both services speak it.
//!
//! - [`Problem`]: RFC 9457 errors; the public part goes out, the private part to the log
//! - [`layers`]: the middleware stack and its order
//! - [`Readiness`], [`health_routes`]: `/live`, `/ready`
//! - [`Server`]: bind, serve, drain within a deadline
//! - [`PushGuard`]: who may push; `push_auth` verifies the token that Pub/Sub sends

mod health;
mod media_type;
mod middleware;
mod problem;
#[cfg(feature = "cloud")]
pub mod push_auth;
mod push_guard;
mod render;
mod server;
#[cfg(test)]
mod tests;
mod unread;

pub use health::{Readiness, health_routes};
pub use media_type::{media_type, media_type_of};
pub use middleware::{HttpLimits, RequestId, layers};
pub use problem::Problem;
pub use push_guard::{PushGuard, SharedPushGuard, guard_pushes};
pub use server::Server;
