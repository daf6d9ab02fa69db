//! The route `POST /embed`, which accepts the same bodies as `POST /classify`.

use axum::{
    Json,
    extract::{Request, State},
};
use contract::Embedding;
use platform::http::Problem;
use serde::Serialize;

use super::classify::{ImageSource, read_request};
use crate::service::{Answer, SharedService};

/// The JSON body of the response: the members of the embedding's record, and `duplicate`.
#[derive(Debug, Serialize)]
pub(super) struct EmbedResponse {
    #[serde(flatten)]
    embedding: Embedding,
    /// True if the embedding comes from a record that was stored earlier.
    duplicate: bool,
}

/// Computes the embedding of the image of a request and builds the response.
pub(super) async fn handle_embed(
    State(service): State<SharedService>,
    request: Request,
) -> Result<Json<EmbedResponse>, Problem> {
    let (source, _) = read_request(&service, request).await?;
    let Answer { result: embedding, duplicate } = match source {
        ImageSource::Stored(path) => service.embed_object(&path).await?,
        ImageSource::Body(image) => service.embed_bytes(image).await?,
    };
    tracing::info!(duplicate, "embedded");
    Ok(Json(EmbedResponse { embedding, duplicate }))
}
