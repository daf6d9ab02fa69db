//! A [`PushGuard`] decides which push requests reach their handler.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};

/// Path of the route that receives pushes.
pub const PUSH_PATH: &str = "/pubsub";

/// A check of push requests that reads only their headers.
#[async_trait]
pub trait PushGuard: Send + Sync + 'static {
    /// Returns the request if this guard accepts it. Otherwise returns the response to the request.
    ///
    /// An implementation may describe the sender in the extensions of the request.
    async fn admit(&self, request: Request) -> Result<Request, Response>;
}

/// A guard that concurrent requests share.
pub type SharedPushGuard = Arc<dyn PushGuard>;

/// Middleware that refuses the requests that `guard` does not accept. It does not read their bodies.
///
/// The route of pushes applies this middleware with
/// `.route_layer(middleware::from_fn_with_state(guard, guard_pushes))`.
pub async fn guard_pushes(State(guard): State<SharedPushGuard>, request: Request, next: Next) -> Response {
    match guard.admit(request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal,
    }
}
