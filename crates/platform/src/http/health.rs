//! The routes `/live` and `/ready`, and the state that `/ready` reports.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Problem, ReadyCheck};

/// State of a service, which is starting, ready or draining. Clones share the state.
///
/// A draining service answers its open requests and then stops.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Starting,
    Ready(Value),
    Draining,
}

impl Readiness {
    /// Marks the service as ready. `info` becomes the body of `/ready`. This does nothing if the service is
    /// draining.
    pub fn set_ready(&self, info: Value) {
        self.phase.send_if_modified(|phase| {
            let is_draining = matches!(phase, Phase::Draining);
            if !is_draining {
                *phase = Phase::Ready(info);
            }
            !is_draining
        });
    }

    /// Marks the service as draining. A draining service cannot become ready again.
    pub fn set_draining(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Returns true if the service accepts work.
    pub fn is_ready(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ready(_))
    }

    /// Returns true if the service is shutting down.
    pub fn is_draining(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Draining)
    }

    /// Waits until the service is no longer starting. Then returns the body of `/ready`, or `None` if the
    /// service is draining.
    pub async fn wait_ready(&self) -> Option<Value> {
        let mut phases = self.phase.subscribe();
        // Waiting fails only if the sender is dropped, and `self` holds the sender.
        let phase = phases.wait_for(|phase| !matches!(phase, Phase::Starting)).await.ok()?;
        match &*phase {
            Phase::Ready(info) => Some(info.clone()),
            Phase::Starting | Phase::Draining => None,
        }
    }
}

/// Returns the routes `GET /live` and `GET /ready`.
///
/// `/live` always answers with status 200. `/ready` answers with status 200 and the info of
/// [`Readiness::set_ready`] if the service is ready. Otherwise it answers with status 503 and a problem of
/// the kind `starting` or `draining`.
pub fn health_routes(readiness: Readiness) -> Router {
    new_routes(readiness, None)
}

/// Returns the routes of [`health_routes`]. While `check` returns a problem, `/ready` answers with it.
pub fn health_routes_with_check(readiness: Readiness, check: ReadyCheck) -> Router {
    new_routes(readiness, Some(check))
}

fn new_routes(readiness: Readiness, check: Option<ReadyCheck>) -> Router {
    Router::new()
        .route("/live", get(|| async { Json(json!({ "status": "live" })) }))
        .route("/ready", get(get_ready))
        .with_state((readiness, check))
}

/// Returns true if monitoring polls `path`. Requests for such a path are logged only at level debug.
pub(super) fn is_probe_path(path: &str) -> bool {
    matches!(path, "/live" | "/ready" | "/metrics")
}

async fn get_ready(State((readiness, check)): State<(Readiness, Option<ReadyCheck>)>) -> Response {
    let retry_after = Duration::from_secs(1);
    let phase = readiness.phase.borrow().clone();
    match phase {
        Phase::Ready(info) => match check {
            Some(check) => {
                check.run().await.map_or_else(Problem::into_response, |()| Json(info).into_response())
            }
            None => Json(info).into_response(),
        },
        Phase::Starting => {
            Problem::unavailable("starting", "The service is starting; try again soon.", retry_after)
                .into_response()
        }
        Phase::Draining => Problem::unavailable(
            "draining",
            "This instance is shutting down; try again to reach another instance.",
            retry_after,
        )
        .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_service_cannot_become_ready_again() {
        let readiness = Readiness::default();
        let clone = readiness.clone();
        assert!(!clone.is_ready() && !clone.is_draining());
        readiness.set_ready(json!({ "model": "m" }));
        assert!(clone.is_ready() && !clone.is_draining());
        clone.set_draining();
        readiness.set_ready(json!({ "model": "again" }));
        assert!(!readiness.is_ready() && readiness.is_draining());
    }

    #[test]
    fn service_that_drains_while_starting_never_becomes_ready() {
        let readiness = Readiness::default();
        readiness.set_draining();
        readiness.set_ready(Value::Null);
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn wait_ready_returns_the_info_when_ready_and_none_when_draining() {
        let readiness = Readiness::default();
        let waiter = readiness.clone();
        let (info, ()) = tokio::join!(waiter.wait_ready(), async { readiness.set_ready(json!("up")) });
        assert_eq!(info, Some(json!("up")));
        readiness.set_draining();
        assert_eq!(waiter.wait_ready().await, None);
    }
}
