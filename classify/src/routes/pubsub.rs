//! `POST /pubsub`: an event that Pub/Sub or Eventarc pushes.

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use contract::GcsPath;
use platform::topic::announcement;
use serde::Serialize;

use crate::{
    error::ClassifyError,
    event::{Attended, Handled},
    outcome::Row,
    service::{Answer, SharedService},
};

/// The answer to an event that has its prediction.
#[derive(Serialize)]
struct Done {
    status: &'static str,
    label: String,
    confidence: f32,
    gcs_path: Option<GcsPath>,
    model: String,
    duplicate: bool,
}

/// The answer to an event that never gets one.
#[derive(Serialize)]
struct NeverDone {
    status: &'static str,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gcs_path: Option<String>,
}

pub(super) async fn pubsub(
    State(service): State<SharedService>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Handled { outcome, gcs_path, result } =
        service.handle(announcement::parse_request(&headers, &body)).await;
    let row = outcome.row();
    match result {
        Ok(Attended::Classified(answer)) => done(&row, answer),
        Ok(Attended::Ignored(_, message)) => never_done(&row, message, gcs_path),
        Err(error) if row.acknowledged() => never_done(&row, error.to_string(), gcs_path),
        Err(error) => refused(&row, error),
    }
}

fn done(row: &Row, Answer { prediction, duplicate }: Answer) -> Response {
    let body = Done {
        status: row.word,
        label: prediction.label,
        confidence: prediction.confidence,
        gcs_path: prediction.gcs_path,
        model: prediction.model,
        duplicate,
    };
    (row.status, Json(body)).into_response()
}

/// The answer to an event that is acknowledged without a prediction, so that it does not come back.
fn never_done(row: &Row, message: String, gcs_path: Option<String>) -> Response {
    let body = NeverDone { status: row.word, reason: row.reason, message, gcs_path };
    (row.status, Json(body)).into_response()
}

/// The answer to an event that may succeed later. The table has the last word on the status.
fn refused(row: &Row, error: ClassifyError) -> Response {
    let mut problem = error.into_problem();
    problem.status = row.status;
    problem.into_response()
}
