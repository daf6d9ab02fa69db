//! Reads request bodies up to a limit, and drains what is not read.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::json::{LargeJsonPermit, LargeJsonPermits, MAX_SMALL_JSON_BYTES};

/// Maximum time spent draining a body.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a body of at most `limit` bytes, and returns it with the permit that a large body needs. Returns
/// `None` if the body is longer, and drains the rest of it.
///
/// # Errors
/// Returns an error if the body arrives incomplete.
pub(super) async fn read_json(
    body: Body,
    limit: usize,
    permits: &LargeJsonPermits,
) -> Result<Option<(Bytes, Option<LargeJsonPermit>)>, axum::Error> {
    let mut bytes = BytesMut::new();
    let mut permit = None;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        let byte_count = bytes.len() + chunk.len();
        if byte_count > limit {
            drop((bytes, permit));
            drain(chunks).await;
            return Ok(None);
        }
        if byte_count > MAX_SMALL_JSON_BYTES && permit.is_none() {
            permit = Some(permits.acquire().await);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some((bytes.freeze(), permit)))
}

/// Reads and discards the rest of a body. The limit of the middleware bounds its length.
///
/// A client that is still sending when the connection is closed may never see the response.
pub(super) async fn drain(mut chunks: BodyDataStream) {
    let draining = async { while let Some(Ok(_)) = chunks.next().await {} };
    // The outcome is ignored, because the response does not depend on it.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, draining).await;
}
