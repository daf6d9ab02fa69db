//! The check of push requests.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};

/// Decides which push requests are accepted, by their headers alone.
#[async_trait]
pub trait PushGuard: Send + Sync + 'static {
    /// Returns the request if it is accepted, and otherwise the response that refuses it.
    ///
    /// An implementation may describe the sender in the extensions of the request.
    async fn admit(&self, request: Request) -> Result<Request, Response>;
}

/// A guard shared by concurrent requests.
pub type SharedPushGuard = Arc<dyn PushGuard>;

/// Middleware that passes on only the requests that `guard` accepts. It reads nothing of the body.
///
/// Use it on one route, as `.route_layer(middleware::from_fn_with_state(guard, guard_pushes))`.
pub async fn guard_pushes(State(guard): State<SharedPushGuard>, request: Request, next: Next) -> Response {
    match guard.admit(request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal,
    }
}
