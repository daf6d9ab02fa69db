//! The HTTP layer of both services.
//!
//! - [`Problem`]: RFC 9457 error responses; the public part is sent, the private part is logged
//! - [`with_middleware`]: the middleware stack and its order
//! - [`Readiness`], [`health_routes`]: `/live` and `/ready`
//! - [`Server`]: binds, serves, and drains within a timeout
//! - [`PushGuard`]: decides which push requests are accepted; `push_auth` verifies the token that Pub/Sub sends

mod health;
mod limits;
mod media_type;
mod middleware;
mod problem;
#[cfg(feature = "cloud")]
pub mod push_auth;
mod push_guard;
mod render;
mod request_id;
mod server;
#[cfg(test)]
mod tests;
mod unread_body;

pub use health::{Readiness, health_routes};
pub use limits::HttpLimits;
pub use media_type::{media_type, media_type_of};
pub use middleware::with_middleware;
pub use problem::Problem;
pub use push_guard::{PushGuard, SharedPushGuard, guard_pushes};
pub use request_id::RequestId;
pub use server::Server;
