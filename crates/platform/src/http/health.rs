//! `/live` and `/ready`.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Problem;

/// Whether the service takes work: not yet, yes, or no longer. Cheap to clone; all clones are one.
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
    /// Ready from now on (unless it drains already); `info` is the body of `/ready`: what runs here
    /// (model, backend, version).
    pub fn set_ready(&self, info: Value) {
        self.phase.send_if_modified(|phase| {
            let drains = matches!(phase, Phase::Draining);
            if !drains {
                *phase = Phase::Ready(info);
            }
            !drains
        });
    }

    /// Not ready any more, and never again in this process.
    pub fn set_draining(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Whether work is taken.
    pub fn is_ready(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ready(_))
    }

    /// Whether the service is on its way out.
    pub fn is_draining(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Draining)
    }

    /// Comes back once work is taken, with the ready info; `None` when the service drains instead.
    pub async fn wait_ready(&self) -> Option<Value> {
        let mut phases = self.phase.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let phase = phases.wait_for(|phase| !matches!(phase, Phase::Starting)).await.ok()?;
        match &*phase {
            Phase::Ready(info) => Some(info.clone()),
            Phase::Starting | Phase::Draining => None,
        }
    }
}

/// `GET /live`: 200 while the process runs. `GET /ready`: 200 with the ready info, else 503
/// problem+json (`starting`, `draining`).
pub fn health_routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/live", get(|| async { Json(json!({ "status": "live" })) }))
        .route("/ready", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let pause = Duration::from_secs(1);
    let phase = readiness.phase.borrow().clone();
    match phase {
        Phase::Ready(info) => Json(info).into_response(),
        Phase::Starting => {
            Problem::unavailable("starting", "The service is starting; try again soon.", pause)
                .into_response()
        }
        Phase::Draining => Problem::unavailable(
            "draining",
            "This instance is stopping; try again and another one will answer.",
            pause,
        )
        .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_then_ready_then_draining_for_ever() {
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
    fn a_service_that_drains_before_it_is_ready_never_gets_ready() {
        let readiness = Readiness::default();
        readiness.set_draining();
        readiness.set_ready(Value::Null);
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_first_change() {
        let readiness = Readiness::default();
        let waiter = readiness.clone();
        let (info, ()) = tokio::join!(waiter.wait_ready(), async { readiness.set_ready(json!("up")) });
        assert_eq!(info, Some(json!("up")));
        readiness.set_draining();
        assert_eq!(waiter.wait_ready().await, None);
    }
}
