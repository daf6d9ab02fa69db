//! `POST /pubsub`: an event that Pub/Sub pushes.

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use metrics::counter;
use platform::{
    contract::GcsPath,
    telemetry::error_chain,
    topic::push::{Delivery, PushError},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::ClassifyError,
    outcome::{Outcome, Row},
    service::{Answer, Service, SharedService},
};

/// What must be known of an [`ImageEvent`](platform::contract::ImageEvent) here. The path is a plain
/// text at first, so that a bad path is not taken for bad JSON.
#[derive(Deserialize)]
struct Event {
    gcs_path: String,
}

/// A path longer than any that Cloud Storage takes is neither logged nor sent back.
const MAX_PATH: usize = 2048;

/// What the push says of itself, for the log and the answer.
#[derive(Default)]
struct About {
    message_id: Option<String>,
    gcs_path: Option<String>,
}

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
struct NeverDone<'a> {
    status: &'static str,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gcs_path: Option<&'a str>,
}

pub(super) async fn pubsub(
    State(service): State<SharedService>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut about = About::default();
    match handle(&service, &headers, &body, &mut about).await {
        Ok(answer) => done(answer),
        Err(error) => {
            let row = counted(Outcome::of(&error));
            if row.acknowledged() { dead(&row, &error, &about) } else { refused(&row, error) }
        }
    }
}

async fn handle(
    service: &Service,
    headers: &HeaderMap,
    body: &Bytes,
    about: &mut About,
) -> Result<Answer, ClassifyError> {
    service.admit()?;
    let delivery = Delivery::parse(headers, body)?;
    about.message_id = delivery.message_id;
    let event: Event = serde_json::from_slice(&delivery.data)
        .map_err(|error| PushError::BadJson(format!("the data: {error}")))?;
    let path = event.gcs_path.parse::<GcsPath>();
    about.gcs_path = Some(event.gcs_path).filter(|path| path.len() <= MAX_PATH);
    service.classify_event(&path.map_err(|_| ClassifyError::BadPath)?).await
}

fn done(Answer { prediction, duplicate }: Answer) -> Response {
    let row = counted(if duplicate { Outcome::Duplicate } else { Outcome::Accepted });
    tracing::info!(
        gcs_path = prediction.gcs_path.as_ref().map(tracing::field::display),
        label = prediction.label,
        confidence = prediction.confidence,
        duplicate,
        "classified"
    );
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

/// The answer to an event that can never succeed: acknowledged, so that it does not come back, and
/// told in the log, where somebody may look for it.
fn dead(row: &Row, error: &ClassifyError, about: &About) -> Response {
    tracing::warn!(
        reason = row.reason,
        message_id = about.message_id,
        gcs_path = about.gcs_path,
        error = error_chain(error),
        "an event can never be classified and is acknowledged as dead"
    );
    let body = NeverDone {
        status: row.word,
        reason: row.reason,
        message: error.to_string(),
        gcs_path: about.gcs_path.as_deref(),
    };
    (row.status, Json(body)).into_response()
}

/// The answer to an event that may succeed later. The table has the last word on the status.
fn refused(row: &Row, error: ClassifyError) -> Response {
    let mut problem = error.into_problem();
    problem.status = row.status;
    problem.into_response()
}

fn counted(outcome: Outcome) -> Row {
    let row = outcome.row();
    counter!("classify_push_total", "outcome" => row.word, "reason" => row.reason).increment(1);
    row
}
