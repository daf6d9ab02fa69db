//! This module finds the image that an event announces. An event is a delivered message or a CloudEvent.
//!
//! An image is announced in one of three forms:
//! - a message of the crate `contract`, `{"gcs_path":"gs://…"}`, which preprocess or another publisher sends;
//! - a notification that Cloud Storage publishes to a Pub/Sub topic: the attributes are `eventType`,
//!   `bucketId`, `objectId` and `objectGeneration`, and the data is the object's resource, which is the JSON
//!   that describes the object;
//! - a CloudEvent that Eventarc sends: its attributes are HTTP headers (binary) or in the body (structured).
//!
//! Messages and notifications arrive as push requests, as pulled messages, or as the data of a CloudEvent.
//! A missing required member is a [`DeliveryError`]. A missing or invalid optional member is ignored.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use axum::http::HeaderMap;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    json::{any_value, bad_json, parse_members, shorten, text_of},
    push::{Delivery, DeliveryError},
};
use crate::{http::media_type_of, topic::TRACEPARENT};

/// Prefix of all event types in notifications of Cloud Storage.
const NOTIFICATION_PREFIX: &str = "OBJECT_";
/// Event type in the notification of a new object.
const OBJECT_FINALIZE: &str = "OBJECT_FINALIZE";
/// Type of the CloudEvent for a new object.
const CLOUD_EVENT_FINALIZED: &str = "google.cloud.storage.object.v1.finalized";
/// Type of the CloudEvent that contains a Pub/Sub message.
const MESSAGE_PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";
/// Content type of a structured CloudEvent.
const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json";
/// Value of the member `kind` in an object's resource.
const OBJECT_KIND: &str = "storage#object";
/// Maximum number of characters of an event type that [`EventContent::NoImage`] repeats. Google's event types
/// are shorter.
const MAX_EVENT_TYPE_CHARS: usize = 100;

/// A delivered message, or a CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedEvent {
    /// Id of the message or of the CloudEvent, if the delivery contains it.
    pub message_id: Option<String>,
    /// W3C trace context, if the delivery contains a valid one.
    pub traceparent: Option<String>,
    /// Content of the event. An error is permanent: a redelivery has the same content.
    pub content: Result<EventContent, DeliveryError>,
}

/// Content of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventContent {
    /// The event announces an image.
    Image(Announcement),
    /// The event announces no image. The text is the reason.
    NoImage(String),
}

/// The announcement of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Path of the image. The path is not validated here, because callers report an invalid path differently
    /// from invalid JSON.
    pub gcs_path: String,
    /// Sender of the announcement.
    pub announcer: Announcer,
    /// Version of the object, if the announcement contains it.
    pub generation: Option<i64>,
    /// Content type of the object, if the announcement contains one that is not empty.
    pub content_type: Option<String>,
}

/// Sender of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcer {
    /// A publisher, which sent a message about this object.
    Publisher,
    /// The bucket, which announces every new object, image or not.
    Bucket,
}

/// Parses an HTTP request, which is a push request of Pub/Sub or contains a CloudEvent.
pub fn parse_request(headers: &HeaderMap, body: &Bytes) -> ReceivedEvent {
    let event = match CloudEvent::from_binary(headers, body) {
        Some(event) => Ok(Some(event)),
        None if is_structured_cloud_event(headers) => CloudEvent::from_structured(body).map(Some),
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

fn parse_content(delivery: &Delivery) -> Result<EventContent, DeliveryError> {
    let data = parse_data(&delivery.data);
    match attribute(delivery, "eventType") {
        // The data takes precedence over the attributes, because attributes may arrive as HTTP headers, which
        // cannot contain every object name. If the notification has no data (`payloadFormat` is `NONE`), the
        // attributes contain all required values.
        Some(OBJECT_FINALIZE) => parse_object(&data.unwrap_or_default(), |name| attribute(delivery, name)),
        Some(other) if other.starts_with(NOTIFICATION_PREFIX) => Ok(content_without_image(other)),
        _ => parse_message(&data?),
    }
}

/// The members that this module reads from a message of the crate `contract` and from an object's resource.
///
/// Each member may be missing or have any type. The other members are skipped.
#[derive(Default, Deserialize)]
struct Data<'a> {
    #[serde(borrow, default, deserialize_with = "any_value")]
    gcs_path: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    bucket: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    generation: Option<&'a RawValue>,
    #[serde(borrow, rename = "contentType")]
    content_type: Option<&'a RawValue>,
}

fn parse_data(data: &[u8]) -> Result<Data<'_>, DeliveryError> {
    parse_members(data).map_err(|error| bad_json("the data is not JSON: ", &error))
}

/// Parses the data of a message of the crate `contract`, or of a notification without its attributes.
fn parse_message(data: &Data<'_>) -> Result<EventContent, DeliveryError> {
    let Some(path) = data.gcs_path else {
        // Without its attributes, a notification may be about an event other than a new object. In that case
        // the object was deleted or is already classified, and the caller handles both cases.
        if text_of(data.kind).is_some_and(|kind| kind == OBJECT_KIND) {
            return parse_object(data, |_| None);
        }
        return Err(DeliveryError::BadJson("the data has no member gcs_path".to_owned()));
    };
    let path =
        text_of(Some(path)).ok_or_else(|| DeliveryError::BadJson("gcs_path is not a string".to_owned()))?;
    Ok(EventContent::Image(Announcement {
        gcs_path: path.into_owned(),
        announcer: Announcer::Publisher,
        generation: None,
        content_type: None,
    }))
}

/// Parses the resource of a new object and the attributes of its notification.
fn parse_object<'a>(
    resource: &Data<'_>,
    attribute: impl Fn(&str) -> Option<&'a str>,
) -> Result<EventContent, DeliveryError> {
    let bucket = text_of(resource.bucket).or_else(|| attribute("bucketId").map(Into::into));
    let name = text_of(resource.name).or_else(|| attribute("objectId").map(Into::into));
    let (Some(bucket), Some(name)) = (bucket, name) else {
        return Err(DeliveryError::BadJson("the bucket or the name of the object is missing".to_owned()));
    };
    let generation = resource.generation.and_then(parse_i64);
    Ok(EventContent::Image(Announcement {
        gcs_path: format!("gs://{bucket}/{name}"),
        announcer: Announcer::Bucket,
        generation: generation.or_else(|| attribute("objectGeneration")?.parse().ok()),
        content_type: text_of(resource.content_type)
            .filter(|text| !text.is_empty())
            .map(|text| shorten(&text)),
    }))
}

/// The members of a structured CloudEvent that this module reads. The other members are skipped.
#[derive(Default, Deserialize)]
struct StructuredCloudEvent<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "any_value")]
    data: Option<&'a RawValue>,
}

/// The attributes of a CloudEvent that this module needs, and the data of the event.
struct CloudEvent {
    event_type: String,
    id: Option<String>,
    traceparent: Option<String>,
    data: Bytes,
}

impl CloudEvent {
    /// Parses an event whose attributes are headers and whose data is the body. Returns `None` if the request
    /// has no header `ce-type`.
    fn from_binary(headers: &HeaderMap, body: &Bytes) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Some(Self {
            event_type: text("ce-type")?,
            id: text("ce-id").map(|id| shorten(&id)),
            traceparent: text("ce-traceparent").or_else(|| text(TRACEPARENT)),
            data: body.clone(),
        })
    }

    /// Parses an event whose body contains the attributes and the data.
    fn from_structured(body: &Bytes) -> Result<Self, DeliveryError> {
        let event: StructuredCloudEvent<'_> = parse_members(body).map_err(|error| bad_json("", &error))?;
        let event_type = text_of(event.event_type)
            .ok_or_else(|| DeliveryError::BadJson("the event has no type".to_owned()))?;
        let data = match (text_of(event.data_base64), event.data) {
            (Some(base64), _) => BASE64_STANDARD
                .decode(base64.as_bytes())
                .map_err(|error| DeliveryError::BadBase64(error.to_string()))?
                .into(),
            (None, Some(data)) => body.slice_ref(data.get().as_bytes()),
            (None, None) => Bytes::new(),
        };
        Ok(Self {
            event_type: event_type.into_owned(),
            id: text_of(event.id).map(|id| shorten(&id)),
            traceparent: text_of(event.traceparent).map(Cow::into_owned),
            data,
        })
    }

    fn into_received_event(self) -> ReceivedEvent {
        let Self { event_type, id, traceparent, data } = self;
        let traceparent = traceparent.as_deref().and_then(valid_traceparent);
        if event_type == MESSAGE_PUBLISHED {
            // The data is the envelope of a wrapped push request, as Pub/Sub sends it without Eventarc.
            let inner = parse_push(&HeaderMap::new(), &data);
            return ReceivedEvent {
                message_id: inner.message_id.or(id),
                traceparent: inner.traceparent.or(traceparent),
                content: inner.content,
            };
        }
        let content = if event_type == CLOUD_EVENT_FINALIZED {
            parse_data(&data).and_then(|resource| parse_object(&resource, |_| None))
        } else {
            Ok(content_without_image(&event_type))
        };
        ReceivedEvent { message_id: id, traceparent, content }
    }
}

fn is_structured_cloud_event(headers: &HeaderMap) -> bool {
    media_type_of(headers) == STRUCTURED_CONTENT_TYPE
}

/// Returns the content of an event whose type is not that of a new object.
fn content_without_image(event_type: &str) -> EventContent {
    let event_type: String = event_type.chars().take(MAX_EVENT_TYPE_CHARS).collect();
    EventContent::NoImage(format!("{event_type} is not the event of a new object"))
}

/// Returns the attribute `name`. The name may differ in case, because an attribute that arrives as an HTTP
/// header has a lower-case name.
fn attribute<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    let found = delivery.attributes.iter().find(|(attribute, _)| attribute.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Parses a 64-bit integer. Google's JSON contains such integers as strings.
fn parse_i64(value: &RawValue) -> Option<i64> {
    match text_of(Some(value)) {
        Some(text) => text.parse().ok(),
        None => serde_json::from_str(value.get()).ok(),
    }
}

/// Returns `text` if it has a valid length and valid characters for a W3C trace context. Version 00 has 55
/// characters, and later versions may have more.
fn valid_traceparent(text: &str) -> Option<String> {
    let valid_characters = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    ((55..=128).contains(&text.len()) && valid_characters).then(|| text.to_owned())
}
