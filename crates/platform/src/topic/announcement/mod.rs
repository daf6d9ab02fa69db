//! This module finds the image that a delivery announces.
//!
//! An image is announced in one of three forms:
//! - the message of the contract, `{"gcs_path":"gs://…"}`;
//! - a notification of Cloud Storage on a Pub/Sub topic: the attributes `eventType`, `bucketId`, `objectId`
//!   and `objectGeneration`, and the object's resource as the data;
//! - a CloudEvent of Eventarc, binary or structured.
//!
//! Messages and notifications are wrapped or unwrapped, with or without metadata in headers, or are the data
//! of a CloudEvent of Pub/Sub. A required member that is missing is a [`PushError`]. An optional member that
//! is missing or invalid is ignored.

#[cfg(test)]
mod tests;

use axum::http::HeaderMap;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::push::{Delivery, PushError};
use crate::{http::media_type_of, topic::TRACEPARENT};

/// Prefix of the event types of notifications.
const NOTIFICATION_PREFIX: &str = "OBJECT_";
/// Event type of the notification of a new object.
const OBJECT_FINALIZE: &str = "OBJECT_FINALIZE";
/// Type of the CloudEvent of a new object.
const FINALIZED: &str = "google.cloud.storage.object.v1.finalized";
/// Type of the CloudEvent of a Pub/Sub message.
const MESSAGE_PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";
/// Content type of a structured CloudEvent.
const CLOUD_EVENT: &str = "application/cloudevents+json";
/// Value of the member `kind` in an object's resource.
const OBJECT_KIND: &str = "storage#object";
/// Maximum number of characters of an unknown event type in a text. None of Google's types is longer.
const MAX_TYPE_CHARS: usize = 100;

/// A delivered message or event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedEvent {
    /// Id of the message or event, if the delivery contains it.
    pub message_id: Option<String>,
    /// W3C trace context, if the delivery contains a valid one.
    pub traceparent: Option<String>,
    /// Content of the event. An error is permanent: a redelivery has the same content.
    pub content: Result<EventContent, PushError>,
}

/// Content of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventContent {
    /// The event announces an image.
    Image(Announcement),
    /// The event announces no image, for this reason.
    Other(String),
}

/// The announcement of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Path of the image. The path is not yet validated, because an invalid path is a different error from
    /// invalid JSON.
    pub gcs_path: String,
    /// Sender of the announcement.
    pub announcer: Announcer,
    /// Version of the object, if the announcement contains it.
    pub generation: Option<i64>,
    /// Content type of the object, if the announcement contains it. Never empty.
    pub content_type: Option<String>,
}

/// Sender of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcer {
    /// A publisher, which has chosen this object.
    Message,
    /// The bucket, which announces every new object, image or not.
    Bucket,
}

/// Parses an HTTP request: a push of Pub/Sub, or a CloudEvent.
pub fn parse_request(headers: &HeaderMap, body: &Bytes) -> ReceivedEvent {
    let event = match CloudEvent::from_binary(headers, body) {
        Some(event) => Ok(Some(event)),
        None if is_structured(headers) => CloudEvent::from_structured(body).map(Some),
        None => Ok(None),
    };
    match event {
        Ok(Some(event)) => event.into_received_event(),
        Ok(None) => parse_push(headers, body),
        Err(error) => ReceivedEvent { message_id: None, traceparent: None, content: Err(error) },
    }
}

/// Parses a message that was pushed or pulled.
pub fn parse_delivery(delivery: &Delivery) -> ReceivedEvent {
    ReceivedEvent {
        message_id: delivery.message_id.clone(),
        traceparent: attribute(delivery, TRACEPARENT).and_then(valid_traceparent),
        content: parse_content(delivery),
    }
}

fn parse_push(headers: &HeaderMap, body: &Bytes) -> ReceivedEvent {
    match Delivery::parse(headers, body) {
        Ok(delivery) => parse_delivery(&delivery),
        Err(error) => ReceivedEvent { message_id: None, traceparent: None, content: Err(error) },
    }
}

fn parse_content(delivery: &Delivery) -> Result<EventContent, PushError> {
    let data = serde_json::from_slice::<Value>(&delivery.data);
    match attribute(delivery, "eventType") {
        // The payload takes precedence, because a header cannot carry every name. Without a payload
        // (`payloadFormat` is `NONE`), the attributes have all that is required.
        Some(OBJECT_FINALIZE) => parse_object(&data.unwrap_or_default(), |name| attribute(delivery, name)),
        Some(other) if other.starts_with(NOTIFICATION_PREFIX) => Ok(other_event(other)),
        _ => {
            let data = data.map_err(|error| PushError::BadJson(format!("the data: {error}")))?;
            parse_message(&data)
        }
    }
}

/// Parses the message of the contract, or an object's resource without its attributes.
fn parse_message(data: &Value) -> Result<EventContent, PushError> {
    match data.get("gcs_path") {
        Some(Value::String(path)) => Ok(EventContent::Image(Announcement {
            gcs_path: path.clone(),
            announcer: Announcer::Message,
            generation: None,
            content_type: None,
        })),
        Some(_) => Err(PushError::BadJson("the data: gcs_path is not a string".to_owned())),
        // A notification without its attributes. It may be about another event than a new object. Then the
        // object does not exist, or is classified already, and both cases are handled later.
        None if data.get("kind").is_some_and(|kind| kind == OBJECT_KIND) => parse_object(data, |_| None),
        None => Err(PushError::BadJson("the data: gcs_path is missing".to_owned())),
    }
}

/// Parses the resource of a new object and the attributes of its notification.
fn parse_object<'a>(
    resource: &Value,
    attribute: impl Fn(&str) -> Option<&'a str>,
) -> Result<EventContent, PushError> {
    let text = |member: &str| resource.get(member).and_then(Value::as_str);
    let bucket = text("bucket").or_else(|| attribute("bucketId"));
    let name = text("name").or_else(|| attribute("objectId"));
    let (Some(bucket), Some(name)) = (bucket, name) else {
        return Err(PushError::BadJson("the data: the bucket or name of the object is missing".to_owned()));
    };
    let generation = resource.get("generation").and_then(parse_i64);
    Ok(EventContent::Image(Announcement {
        gcs_path: format!("gs://{bucket}/{name}"),
        announcer: Announcer::Bucket,
        generation: generation.or_else(|| attribute("objectGeneration")?.parse().ok()),
        content_type: text("contentType").filter(|text| !text.is_empty()).map(str::to_owned),
    }))
}

/// The attributes of a CloudEvent that this module reads, and the data of the event.
struct CloudEvent {
    kind: String,
    id: Option<String>,
    traceparent: Option<String>,
    data: Bytes,
}

impl CloudEvent {
    /// Parses an event whose attributes are headers and whose data is the body.
    fn from_binary(headers: &HeaderMap, body: &Bytes) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Some(Self {
            kind: text("ce-type")?,
            id: text("ce-id"),
            traceparent: text("ce-traceparent").or_else(|| text(TRACEPARENT)),
            data: body.clone(),
        })
    }

    /// Parses an event whose body contains the attributes and the data.
    fn from_structured(body: &Bytes) -> Result<Self, PushError> {
        let event: Value =
            serde_json::from_slice(body).map_err(|error| PushError::BadJson(error.to_string()))?;
        let text = |member: &str| event.get(member).and_then(Value::as_str).map(str::to_owned);
        let kind = text("type").ok_or_else(|| PushError::BadJson("the event has no type".to_owned()))?;
        let data = match (text("data_base64"), event.get("data")) {
            (Some(base64), _) => BASE64_STANDARD
                .decode(base64)
                .map_err(|error| PushError::BadBase64(error.to_string()))?
                .into(),
            (None, Some(data)) => data.to_string().into(),
            (None, None) => Bytes::new(),
        };
        Ok(Self { kind, id: text("id"), traceparent: text(TRACEPARENT), data })
    }

    fn into_received_event(self) -> ReceivedEvent {
        let Self { kind, id, traceparent: trace, data } = self;
        let trace = trace.as_deref().and_then(valid_traceparent);
        if kind == MESSAGE_PUBLISHED {
            // The data is the wrapped push that Pub/Sub would have sent without Eventarc.
            let inner = parse_push(&HeaderMap::new(), &data);
            return ReceivedEvent {
                message_id: inner.message_id.or(id),
                traceparent: inner.traceparent.or(trace),
                content: inner.content,
            };
        }
        let content = if kind == FINALIZED {
            serde_json::from_slice::<Value>(&data)
                .map_err(|error| PushError::BadJson(format!("the data: {error}")))
                .and_then(|resource| parse_object(&resource, |_| None))
        } else {
            Ok(other_event(&kind))
        };
        ReceivedEvent { message_id: id, traceparent: trace, content }
    }
}

fn is_structured(headers: &HeaderMap) -> bool {
    media_type_of(headers) == CLOUD_EVENT
}

fn other_event(kind: &str) -> EventContent {
    let kind: String = kind.chars().take(MAX_TYPE_CHARS).collect();
    EventContent::Other(format!("{kind} is not the event of a new object"))
}

/// Returns an attribute. Case is ignored, because an attribute in a header loses its case.
fn attribute<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    let found = delivery.attributes.iter().find(|(attribute, _)| attribute.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Parses a 64-bit integer, which Google's JSON has as a string.
fn parse_i64(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

/// Returns `text` if it looks like a trace context: version 00 has 55 characters, later ones may have more.
fn valid_traceparent(text: &str) -> Option<String> {
    let valid_characters = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    ((55..=128).contains(&text.len()) && valid_characters).then(|| text.to_owned())
}
