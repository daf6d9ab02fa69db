//! Which image a delivery announces, whoever announces it and in whichever form.
//!
//! An image is announced in one of three ways:
//! - by the message of the contract, `{"gcs_path":"gs://…"}`;
//! - by its bucket, as a notification of Cloud Storage on a Pub/Sub topic: the attributes `eventType`,
//!   `bucketId`, `objectId` and `objectGeneration`, and the object's resource as the data;
//! - by its bucket, as a CloudEvent of Eventarc, binary or structured.
//!
//! Messages and notifications come wrapped, unwrapped, with or without their metadata in headers, and
//! as the data of a CloudEvent of Pub/Sub. What is missing or unreadable and not needed is left out;
//! what is needed and missing is a [`PushError`].

#[cfg(test)]
mod tests;

use axum::http::HeaderMap;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::push::{Delivery, PushError};
use crate::{http::media_type_of, topic::TRACEPARENT};

/// What all event types of Cloud Storage's notifications begin with, and the one of a new object.
const NOTIFICATION: &str = "OBJECT_";
const OBJECT_FINALIZE: &str = "OBJECT_FINALIZE";
/// Types of CloudEvents.
const FINALIZED: &str = "google.cloud.storage.object.v1.finalized";
const MESSAGE_PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";
/// Content type of a structured CloudEvent.
const CLOUD_EVENT: &str = "application/cloudevents+json";
/// Member `kind` of an object's resource.
const OBJECT_KIND: &str = "storage#object";
/// So many characters of an unknown event type are repeated at most; none of Google's is longer.
const MAX_TYPE: usize = 100;

/// What was delivered, and what the delivery says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Id of the message or event, where the delivery says it.
    pub message_id: Option<String>,
    /// W3C trace context of the announcement, where it has one.
    pub traceparent: Option<String>,
    /// What is announced; an error never becomes an announcement by coming again.
    pub announced: Result<Announced, PushError>,
}

/// What a delivery announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// An image to classify.
    Image(Announcement),
    /// Nothing to look at, and why.
    Other(String),
}

/// An image that may be classified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The image's address as it was announced. A plain text, so that a bad path is not taken for bad
    /// JSON.
    pub gcs_path: String,
    /// Who says so.
    pub by: Announcer,
    /// Which version of the object is meant, where the announcement says it.
    pub generation: Option<i64>,
    /// Content type of the object, where the announcement says it. Never empty.
    pub content_type: Option<String>,
}

/// Who announces an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcer {
    /// A publisher, who means this very object.
    Message,
    /// The bucket, which announces every object, whatever it is.
    Bucket,
}

/// What an HTTP request announces: a push of Pub/Sub or a CloudEvent.
pub fn read(headers: &HeaderMap, body: &Bytes) -> Received {
    let event = match CloudEvent::binary(headers, body) {
        Some(event) => Ok(Some(event)),
        None if is_structured(headers) => CloudEvent::structured(body).map(Some),
        None => Ok(None),
    };
    match event {
        Ok(Some(event)) => event.received(),
        Ok(None) => of_push(headers, body),
        Err(error) => Received { message_id: None, traceparent: None, announced: Err(error) },
    }
}

/// What a delivered message announces, however it came.
pub fn of_delivery(delivery: &Delivery) -> Received {
    Received {
        message_id: delivery.message_id.clone(),
        traceparent: attribute(delivery, TRACEPARENT).and_then(traceparent),
        announced: announced(delivery),
    }
}

fn of_push(headers: &HeaderMap, body: &Bytes) -> Received {
    match Delivery::parse(headers, body) {
        Ok(delivery) => of_delivery(&delivery),
        Err(error) => Received { message_id: None, traceparent: None, announced: Err(error) },
    }
}

fn announced(delivery: &Delivery) -> Result<Announced, PushError> {
    let data = serde_json::from_slice::<Value>(&delivery.data);
    match attribute(delivery, "eventType") {
        // A notification may come without a payload (`payloadFormat` is `NONE`): the attributes then
        // say what is needed. Where there is one it goes first: a header cannot carry every name.
        Some(OBJECT_FINALIZE) => object(&data.unwrap_or_default(), |name| attribute(delivery, name)),
        Some(other) if other.starts_with(NOTIFICATION) => Ok(other_event(other)),
        _ => {
            let data = data.map_err(|error| PushError::BadJson(format!("the data: {error}")))?;
            message(&data)
        }
    }
}

/// The message of the contract, or an object's resource without anything beside it.
fn message(data: &Value) -> Result<Announced, PushError> {
    match data.get("gcs_path") {
        Some(Value::String(path)) => Ok(Announced::Image(Announcement {
            gcs_path: path.clone(),
            by: Announcer::Message,
            generation: None,
            content_type: None,
        })),
        Some(_) => Err(PushError::BadJson("the data: gcs_path is not a text".to_owned())),
        // A notification whose attributes were left behind. It may be of another event than a new
        // object; then there is no such object or it is known already.
        None if data.get("kind").is_some_and(|kind| kind == OBJECT_KIND) => object(data, |_| None),
        None => Err(PushError::BadJson("the data: there is no gcs_path".to_owned())),
    }
}

/// A new object, from its resource and the attributes of the notification.
fn object<'a>(resource: &Value, attribute: impl Fn(&str) -> Option<&'a str>) -> Result<Announced, PushError> {
    let text = |member: &str| resource.get(member).and_then(Value::as_str);
    let bucket = text("bucket").or_else(|| attribute("bucketId"));
    let name = text("name").or_else(|| attribute("objectId"));
    let (Some(bucket), Some(name)) = (bucket, name) else {
        return Err(PushError::BadJson("the data: there is no bucket and name of an object".to_owned()));
    };
    let generation = resource.get("generation").and_then(number);
    Ok(Announced::Image(Announcement {
        gcs_path: format!("gs://{bucket}/{name}"),
        by: Announcer::Bucket,
        generation: generation.or_else(|| attribute("objectGeneration")?.parse().ok()),
        content_type: text("contentType").filter(|text| !text.is_empty()).map(str::to_owned),
    }))
}

/// A CloudEvent, as far as it matters here.
struct CloudEvent {
    kind: String,
    id: Option<String>,
    traceparent: Option<String>,
    data: Bytes,
}

impl CloudEvent {
    /// An event whose attributes are headers and whose data is the body.
    fn binary(headers: &HeaderMap, body: &Bytes) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Some(Self {
            kind: text("ce-type")?,
            id: text("ce-id"),
            traceparent: text("ce-traceparent").or_else(|| text(TRACEPARENT)),
            data: body.clone(),
        })
    }

    /// An event that is all in the body.
    fn structured(body: &Bytes) -> Result<Self, PushError> {
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

    fn received(self) -> Received {
        let Self { kind, id, traceparent: trace, data } = self;
        let trace = trace.as_deref().and_then(traceparent);
        if kind == MESSAGE_PUBLISHED {
            // The data is the wrapped push as it would have come without Eventarc.
            let inner = of_push(&HeaderMap::new(), &data);
            return Received {
                message_id: inner.message_id.or(id),
                traceparent: inner.traceparent.or(trace),
                announced: inner.announced,
            };
        }
        let announced = if kind == FINALIZED {
            serde_json::from_slice::<Value>(&data)
                .map_err(|error| PushError::BadJson(format!("the data: {error}")))
                .and_then(|resource| object(&resource, |_| None))
        } else {
            Ok(other_event(&kind))
        };
        Received { message_id: id, traceparent: trace, announced }
    }
}

fn is_structured(headers: &HeaderMap) -> bool {
    media_type_of(headers) == CLOUD_EVENT
}

fn other_event(kind: &str) -> Announced {
    let kind: String = kind.chars().take(MAX_TYPE).collect();
    Announced::Other(format!("{kind} is not the event of a new object"))
}

/// An attribute, whatever the case of its name: as a header it has lost its own.
fn attribute<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    let found = delivery.attributes.iter().find(|(attribute, _)| attribute.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// A 64-bit number, which Google's JSON has as a text.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

/// `text`, if it can be handed on as a trace context: the four parts of version 00 have 55 characters,
/// and later versions may add a few.
fn traceparent(text: &str) -> Option<String> {
    let looks_right = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    ((55..=128).contains(&text.len()) && looks_right).then(|| text.to_owned())
}
