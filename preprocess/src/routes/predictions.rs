//! `GET /predictions/{id}`: what became of an image. Reads the bucket and nothing else.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use contract::ImageId;
use platform::{config::parse_seconds, http::Problem};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use crate::error;

/// First pause between two looks into the bucket; each is half as long again as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// 200 with the prediction as it is stored; 202 while the image has none; 404 where there is no
/// such image. `?wait=seconds` keeps a request that would be answered 202 until there is a
/// prediction, the time is up, or the service stops.
pub(super) async fn prediction(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id: ImageId = id.parse().map_err(|_| error::bad_id())?;
    let wait = wait(query.as_deref().unwrap_or_default())?.min(shared.settings.max_wait);
    let deadline = Instant::now() + wait;

    if let Some(prediction) = shared.ingest.prediction(&id).await? {
        return Ok(done(prediction));
    }
    if !shared.ingest.has_image(&id).await? {
        return Err(error::no_such_image());
    }
    let mut pause = FIRST_PAUSE;
    while Instant::now() < deadline {
        let next_look = deadline.min(Instant::now() + pause);
        tokio::select! {
            () = sleep_until(next_look) => {}
            () = shared.stop.cancelled() => break,
        }
        if let Some(prediction) = shared.ingest.prediction(&id).await? {
            return Ok(done(prediction));
        }
        pause = LONGEST_PAUSE.min(pause.mul_f64(1.5));
    }
    Ok(pending(&id))
}

fn done(prediction: bytes::Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], prediction).into_response()
}

fn pending(id: &ImageId) -> Response {
    let body = Json(json!({ "id": id, "status": "pending" }));
    (StatusCode::ACCEPTED, [(RETRY_AFTER, "1")], body).into_response()
}

/// The value of `wait` in a query string; no time where there is none.
fn wait(query: &str) -> Result<Duration, Problem> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("wait="));
    value.map_or(Ok(Duration::ZERO), |value| parse_seconds(value).map_err(|_| error::bad_wait()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_seconds() {
        assert_eq!(wait("").unwrap(), Duration::ZERO);
        assert_eq!(wait("other=1").unwrap(), Duration::ZERO);
        assert_eq!(wait("wait=0").unwrap(), Duration::ZERO);
        assert_eq!(wait("a=b&wait=2.5&c").unwrap(), Duration::from_millis(2500));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["wait=", "wait=-1", "wait=soon", "wait=NaN", "wait=inf", "wait=1%2"] {
            assert_eq!(wait(bad).unwrap_err().kind, "bad_wait", "{bad}");
        }
    }
}
