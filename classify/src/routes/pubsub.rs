//! The route `POST /pubsub`, to which Pub/Sub or Eventarc pushes an event.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use contract::{Embedding, GcsPath, Prediction};
use platform::http::{BodyError, Problem};
use serde::Serialize;

use super::count_body_error;
use crate::{
    announcements::{AnnouncementHandler, EventResult, HandledEvent},
    queue_permits::Caller,
    service::{Answer, ImageResult},
};

/// Response to an acknowledged event whose image has a prediction, or an embedding without a label.
#[derive(Serialize)]
struct Classified {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f32>,
    gcs_path: Option<GcsPath>,
    model: String,
    duplicate: bool,
}

/// Response to an acknowledged event without a prediction.
#[derive(Serialize)]
struct NotClassified {
    status: &'static str,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gcs_path: Option<String>,
}

/// Handles a pushed event. The response is 200 if the event is acknowledged, and a problem if it is refused.
///
/// An event that is too large is acknowledged as dead. With a 413, Pub/Sub would deliver it again and again.
pub(super) async fn handle_push(
    State(announcements): State<Arc<AnnouncementHandler>>,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let limit = announcements.settings().max_event_bytes;
    let received = match announcements.bodies().receive_up_to(request, limit).await {
        Ok(body) => announcements.parse_push(headers, body).await,
        Err(BodyError::TooLarge { .. }) => announcements.refuse_too_large(),
        Err(error) => {
            count_body_error(&error);
            return Problem::from(error).into_response();
        }
    };
    let HandledEvent { outcome, gcs_path, result } =
        announcements.handle(received, Caller::PushedEvent).await;
    let handling = outcome.handling();
    match result {
        EventResult::Classified(Answer { result, duplicate }) => {
            let (label, confidence, gcs_path, model) = match result {
                ImageResult::Prediction(Prediction { label, confidence, gcs_path, model, .. }) => {
                    (Some(label), Some(confidence), gcs_path, model)
                }
                ImageResult::Embedding(Embedding { gcs_path, model, .. }) => (None, None, gcs_path, model),
            };
            let status = handling.label;
            Json(Classified { status, label, confidence, gcs_path, model, duplicate }).into_response()
        }
        EventResult::NotClassified(message) => {
            Json(NotClassified { status: handling.label, reason: handling.reason, message, gcs_path })
                .into_response()
        }
        EventResult::Refused(error) => Problem::from(error).into_response(),
    }
}
