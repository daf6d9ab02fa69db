//! The parts of an HTTP service that preprocess and classify share.
//!
//! - [`Problem`] is an error response of RFC 9457. The public part is sent, and the private cause is logged.
//! - [`BodyReceiver`] receives bodies within limits of memory, time and rate.
//! - [`with_middleware`] wraps routes in the middleware stack.
//! - [`RefusalDelay`] delays the answers to refused requests.
//! - [`Readiness`] and [`health_routes`] provide `/live` and `/ready`.
//! - [`Server`] serves requests and bounds its connections. At shutdown, it waits for the open requests, up to the drain timeout.
//! - [`PushGuard`] decides which pushes are accepted. `push_auth` verifies the token that Pub/Sub sends.

mod admission;
mod body;
mod health;
#[cfg(feature = "testing")]
pub mod hostile_text;
mod media_type;
mod middleware;
mod problem;
#[cfg(feature = "cloud")]
pub mod push_auth;
mod push_guard;
mod ready_check;
mod refusal_delay;
mod render;
mod request_id;
mod server;
#[cfg(feature = "testing")]
pub mod test_client;
#[cfg(test)]
mod tests;
mod unread_body;

pub use body::{BodyError, BodyLimits, BodyReceiver, FormFile, FormFiles};
pub use health::{Readiness, health_routes, health_routes_with_check};
pub use media_type::{media_type, media_type_of};
pub use middleware::with_middleware;
pub use problem::Problem;
pub use push_guard::{PUSH_PATH, PushGuard, SharedPushGuard, guard_pushes};
pub use ready_check::ReadyCheck;
pub use refusal_delay::RefusalDelay;
pub use request_id::RequestId;
pub use server::{BindError, ConnectionLimits, HttpServerArgs, Origin, Server, ServerConfig};
