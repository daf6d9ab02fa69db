//! `GET /predictions/{id}`: the prediction or the embedding of an uploaded image, read from the bucket.
//!
//! An image has a prediction, or an embedding, of each model that has classified it. The route returns the one of the
//! current model, or of the model that the client names.

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
use contract::{ImageId, ModelSelector};
use platform::{config::parse_seconds, http::Problem};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{RouteState, problem};
use crate::upload_service::{FoundPrediction, RecordRead, WantedModel};

/// First interval between two reads of the bucket while a request waits for a prediction.
///
/// Each later interval is 1.5 times as long as the previous one, up to [`MAX_POLL_INTERVAL`].
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum interval between two reads of the bucket.
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Responds with 200 and the stored prediction, with 202 if the image has no prediction yet, or with 404 if
/// there is no such image.
///
/// With `?wait=SECONDS`, a request for an image without a prediction waits until the prediction is stored,
/// the time has passed, or the service begins to stop.
///
/// An image that only other models than the current one have classified is announced again. With `?model=MODEL`, the
/// prediction of that model is returned. If it is not the current model, it makes no further predictions, so the
/// response is 404 if it has made none.
pub(super) async fn get_prediction(
    State(state): State<RouteState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id: ImageId = id.parse().map_err(|_| problem::bad_id())?;
    let query = query.as_deref().unwrap_or_default();
    let wait = parse_wait(query)?.min(state.settings.preprocess_max_wait);
    let deadline = Instant::now() + wait;
    let service = &state.upload_service;
    let wanted = service.wanted_model(parse_model(query)?);

    let found = service.read_prediction(&id, &wanted, RecordRead::First).await?;
    if let FoundPrediction::Json(prediction) = found {
        return Ok(prediction_response(prediction));
    }
    if !service.has_image(&id).await? {
        // The image was deleted, and its records of other models were kept.
        return Err(match (&wanted, &found) {
            (WantedModel::Named(model), FoundPrediction::OfOtherModel) => {
                problem::no_prediction_of_model(model)
            }
            (WantedModel::Current(model), FoundPrediction::OfOtherModel) => {
                problem::no_prediction_of_model(model)
            }
            _ => problem::no_such_image(),
        });
    }
    match (&wanted, &found) {
        (WantedModel::Named(model), FoundPrediction::OfOtherModel) => {
            return Err(problem::no_prediction_of_model(model));
        }
        (WantedModel::Named(model), _) if service.is_former_model(&wanted) => {
            return Err(problem::no_prediction_of_model(model));
        }
        (WantedModel::Current(model), FoundPrediction::OfOtherModel)
            if !service.announce_to_current_model(&id).await? =>
        {
            return Err(problem::no_prediction_of_model(model));
        }
        _ => {}
    }
    let mut interval = FIRST_POLL_INTERVAL;
    while Instant::now() < deadline {
        let next_poll = deadline.min(Instant::now() + interval);
        tokio::select! {
            () = sleep_until(next_poll) => {}
            () = state.stop.cancelled() => break,
        }
        match service.read_prediction(&id, &wanted, RecordRead::Repeated).await? {
            FoundPrediction::Json(prediction) => return Ok(prediction_response(prediction)),
            // The current model has classified the image in the meantime, and it is not the named one.
            FoundPrediction::OfOtherModel if matches!(wanted, WantedModel::Named(_)) => break,
            FoundPrediction::Missing | FoundPrediction::OfOtherModel => {}
        }
        interval = MAX_POLL_INTERVAL.min(interval.mul_f64(1.5));
    }
    Ok(pending_response(&id, service.count_ahead(&id).await?))
}

fn prediction_response(prediction: bytes::Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], prediction).into_response()
}

/// Builds the response for an image that is classified after `ahead` other images.
fn pending_response(id: &ImageId, ahead: Option<u64>) -> Response {
    let mut body = json!({ "id": id, "status": "pending" });
    if let Some(ahead) = ahead {
        body["ahead"] = ahead.into();
    }
    let body = Json(body);
    (StatusCode::ACCEPTED, [(RETRY_AFTER, "1")], body).into_response()
}

/// Returns the value of the parameter `name` in a query string. `prefix` is the name and `=`.
fn find_parameter<'a>(query: &'a str, prefix: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(prefix))
}

/// Parses the parameter `model` of a query string. Returns `None` if there is no such parameter.
fn parse_model(query: &str) -> Result<Option<ModelSelector>, Problem> {
    let value = find_parameter(query, "model=");
    value.map(|value| value.parse().map_err(|_| problem::bad_model())).transpose()
}

/// Parses the parameter `wait` of a query string. Returns zero if there is no such parameter.
fn parse_wait(query: &str) -> Result<Duration, Problem> {
    let value = find_parameter(query, "wait=");
    value.map_or(Ok(Duration::ZERO), |value| parse_seconds(value).map_err(|_| problem::bad_wait()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_parsed_as_seconds_and_defaults_to_zero() {
        assert_eq!(parse_wait("").unwrap(), Duration::ZERO);
        assert_eq!(parse_wait("other=1").unwrap(), Duration::ZERO);
        assert_eq!(parse_wait("wait=0").unwrap(), Duration::ZERO);
        assert_eq!(parse_wait("a=b&wait=2.5&c").unwrap(), Duration::from_millis(2500));
    }

    #[test]
    fn wait_that_is_not_a_number_of_seconds_is_refused() {
        for bad in ["wait=", "wait=-1", "wait=soon", "wait=NaN", "wait=inf", "wait=1%2"] {
            assert_eq!(parse_wait(bad).unwrap_err().kind, "bad_wait", "{bad}");
        }
    }
}
