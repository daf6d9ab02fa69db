//! HTTP as both services speak it.
//!
//! - [`Problem`]: RFC 9457 errors; the public part goes out, the private part to the log
//! - [`layers`]: the middleware stack and its order
//! - [`Readiness`], [`health_routes`]: `/live`, `/ready`
//! - [`Server`]: bind, serve, drain within a deadline
//! - [`push_auth`]: the token that Pub/Sub sends with a push, verified

mod health;
mod middleware;
mod problem;
pub mod push_auth;
mod render;
mod server;
#[cfg(test)]
mod tests;

pub use health::{Readiness, health_routes};
pub use middleware::{HttpLimits, RequestId, layers};
pub use problem::Problem;
pub use server::Server;
