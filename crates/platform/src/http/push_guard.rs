//! Who may push.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};

/// Decides, by its head alone, whether a push is let in.
#[async_trait]
pub trait PushGuard: Send + Sync + 'static {
    /// The request, if it is let in, with what is known of its sender in its extensions; else what it
    /// is answered.
    async fn admit(&self, request: Request) -> Result<Request, Response>;
}

/// A guard that several requests pass at once.
pub type SharedPushGuard = Arc<dyn PushGuard>;

/// Lets a request pass that `guard` admits, before anything of its body is read; to be used as
/// `.layer(middleware::from_fn_with_state(guard, guard_pushes))` on one route.
pub async fn guard_pushes(State(guard): State<SharedPushGuard>, request: Request, next: Next) -> Response {
    match guard.admit(request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal,
    }
}
