//! This module parses and creates push requests, with which Pub/Sub delivers a message by HTTP.
//!
//! The body of a wrapped request is a JSON envelope that contains the message. The body of an unwrapped
//! request is the data of the message.

use std::{collections::BTreeMap, time::SystemTime};

use axum::http::HeaderMap;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::{Attributes, Text, any_value, bad_json, parse_members, shorten, text_of};
use crate::clock;

/// A message that was delivered by push or by pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Decoded payload of the message.
    pub data: Bytes,
    /// Attributes of the message.
    pub attributes: BTreeMap<String, String>,
    /// Id of the message, if the delivery contains it.
    pub message_id: Option<String>,
    /// Name of the subscription, `projects/…/subscriptions/…`, if the delivery contains it.
    pub subscription: Option<String>,
    /// Number of the delivery attempt, if the delivery contains it. The first attempt is 1.
    pub delivery_attempt: Option<u32>,
}

/// Reason why a delivery cannot be parsed. The error is permanent, because a redelivery has the same content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The body is not JSON, or a required member is missing or has the wrong type.
    ///
    /// [`super::announcement`] also uses this variant for a message whose data is not the expected JSON.
    #[error("the delivery cannot be parsed: {0}")]
    BadJson(String),
    /// The data, which must be base64, cannot be decoded.
    #[error("the data is not base64: {0}")]
    BadBase64(String),
    /// The delivery is larger than the receiver accepts. It was not parsed.
    #[error("the delivery is larger than {limit} bytes")]
    TooLarge {
        /// Maximum number of bytes.
        limit: usize,
    },
}

/// Prefix of the headers that contain the metadata of an unwrapped message.
const METADATA_HEADER_PREFIX: &str = "x-goog-pubsub-";
/// Headers of an unwrapped push that are not attributes of the message. Headers that begin with
/// `x-forwarded-` are not attributes either.
const TRANSPORT_HEADERS: [&str; 13] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "from",
    "host",
    "transfer-encoding",
    "user-agent",
    "via",
];
/// Subscription name in the created envelope of a delivery that has no subscription.
const LOCAL_SUBSCRIPTION: &str = "projects/local/subscriptions/push";

/// The members of a parsed envelope. `None` in `message` means that the body is not an envelope.
#[derive(Default, Deserialize)]
struct IncomingEnvelope<'a> {
    #[serde(borrow, default, deserialize_with = "any_value")]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    subscription: Option<&'a RawValue>,
    #[serde(borrow, rename = "deliveryAttempt")]
    delivery_attempt: Option<&'a RawValue>,
}

/// The member `message` of a parsed envelope. Pub/Sub sends both spellings of the id.
#[derive(Deserialize)]
struct IncomingMessage<'a> {
    #[serde(borrow)]
    data: Option<Text<'a>>,
    attributes: Option<Attributes>,
    #[serde(borrow, rename = "messageId")]
    message_id: Option<Text<'a>>,
    #[serde(borrow, rename = "message_id")]
    message_id_snake: Option<Text<'a>>,
}

/// The envelope of a wrapped push. The members have the order in which Pub/Sub sends them.
#[derive(Serialize)]
struct Envelope<'a> {
    message: OutgoingMessage<'a>,
    subscription: &'a str,
    #[serde(rename = "deliveryAttempt", skip_serializing_if = "Option::is_none")]
    delivery_attempt: Option<u32>,
}

/// The member `message` of a created envelope.
#[derive(Serialize)]
struct OutgoingMessage<'a> {
    attributes: &'a BTreeMap<String, String>,
    data: String,
    #[serde(rename = "messageId")]
    message_id: &'a str,
    #[serde(rename = "message_id")]
    message_id_snake: &'a str,
    #[serde(rename = "publishTime")]
    publish_time: &'a str,
    #[serde(rename = "publish_time")]
    publish_time_snake: &'a str,
}

impl Delivery {
    /// Parses a push request.
    ///
    /// A wrapped body is the envelope `{"message":{"data":"<base64>",…},"subscription":…}`. If the message
    /// has no `data`, its data is empty. An unwrapped body is the data itself, and headers `x-goog-pubsub-*`
    /// may contain the metadata. A request is unwrapped if it has such a header, or if its body is JSON
    /// without the member `message`.
    ///
    /// An envelope may have at most as many and as long attributes as Pub/Sub allows: 100 attributes, with
    /// names of 256 bytes and values of 1,024 bytes. Unknown members are skipped and cost no memory.
    ///
    /// # Errors
    /// Returns [`DeliveryError`] if the body is not that of a push request.
    pub fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Self, DeliveryError> {
        if headers.keys().any(|name| name.as_str().starts_with(METADATA_HEADER_PREFIX)) {
            return Ok(Self::from_unwrapped(headers, body));
        }
        let envelope: IncomingEnvelope<'_> = parse_members(body).map_err(|error| bad_json("", &error))?;
        match envelope.message {
            Some(message) => Self::from_wrapped(message, &envelope),
            None => Ok(Self { data: body.clone(), ..Self::default() }),
        }
    }

    fn from_wrapped(message: &RawValue, envelope: &IncomingEnvelope<'_>) -> Result<Self, DeliveryError> {
        // Without this check, serde would also parse an array into the struct.
        if !message.get().starts_with('{') {
            return Err(DeliveryError::BadJson("the member message is not an object".to_owned()));
        }
        let message: IncomingMessage<'_> = serde_json::from_str(message.get())
            .map_err(|error| bad_json("in the member message: ", &error))?;
        let data = BASE64_STANDARD
            .decode(message.data.unwrap_or_default().0.as_bytes())
            .map_err(|error| DeliveryError::BadBase64(error.to_string()))?;
        let message_id = message.message_id.or(message.message_id_snake);
        Ok(Self {
            data: data.into(),
            attributes: message.attributes.unwrap_or_default().0,
            message_id: message_id.map(|Text(id)| shorten(&id)),
            subscription: text_of(envelope.subscription).map(|name| shorten(&name)),
            delivery_attempt: envelope
                .delivery_attempt
                .and_then(|attempt| serde_json::from_str(attempt.get()).ok()),
        })
    }

    fn from_unwrapped(headers: &HeaderMap, body: &Bytes) -> Self {
        let mut delivery = Self { data: body.clone(), ..Self::default() };
        for (name, value) in headers {
            let Ok(value) = value.to_str() else { continue };
            let name = name.as_str();
            match name.strip_prefix(METADATA_HEADER_PREFIX) {
                Some("message-id") => delivery.message_id = Some(shorten(value)),
                Some("subscription-name") => delivery.subscription = Some(shorten(value)),
                Some("delivery-attempt") => delivery.delivery_attempt = value.parse().ok(),
                Some(_) => {}
                None if TRANSPORT_HEADERS.contains(&name) || name.starts_with("x-forwarded-") => {}
                None => {
                    delivery.attributes.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        delivery
    }

    /// Returns the JSON of the wrapped envelope, exactly as Pub/Sub sends it. If [`Self::subscription`] is
    /// `None`, the envelope contains the name `projects/local/subscriptions/push`.
    pub fn to_envelope(&self, publish_time: SystemTime) -> Vec<u8> {
        let publish_time = clock::format_rfc3339(publish_time);
        let message_id = self.message_id.as_deref().unwrap_or_default();
        let envelope = Envelope {
            message: OutgoingMessage {
                attributes: &self.attributes,
                data: BASE64_STANDARD.encode(&self.data),
                message_id,
                message_id_snake: message_id,
                publish_time: &publish_time,
                publish_time_snake: &publish_time,
            },
            subscription: self.subscription.as_deref().unwrap_or(LOCAL_SUBSCRIPTION),
            delivery_attempt: self.delivery_attempt,
        };
        match serde_json::to_vec(&envelope) {
            Ok(json) => json,
            Err(error) => unreachable!("strings and numbers can always be serialized as JSON: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(body: &str) -> Result<Delivery, DeliveryError> {
        Delivery::parse(&HeaderMap::new(), &Bytes::copy_from_slice(body.as_bytes()))
    }

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn envelope_that_pubsub_sent_is_parsed() {
        let delivery = parse(
            r#"{"subscription":"projects/test/subscriptions/s","deliveryAttempt":3,"message":{
               "publishTime":"2026-01-01T00:00:00.1Z","publish_time":"2026-01-01T00:00:00.1Z",
               "data":"aGVsbG8=","messageId":"1","message_id":"1","orderingKey":"k",
               "attributes":{"content-type":"image/jpeg"}}}"#,
        );
        let expected = Delivery {
            data: Bytes::from_static(b"hello"),
            attributes: attributes(&[("content-type", "image/jpeg")]),
            message_id: Some("1".to_owned()),
            subscription: Some("projects/test/subscriptions/s".to_owned()),
            delivery_attempt: Some(3),
        };
        assert_eq!(delivery, Ok(expected));
    }

    #[test]
    fn wrapped_message_without_data_has_empty_data() {
        let delivery = parse(r#"{"message":{"attributes":{"a":"b"},"message_id":"7"}}"#).unwrap();
        assert_eq!(delivery.data, "");
        assert_eq!(delivery.attributes, attributes(&[("a", "b")]));
        assert_eq!(delivery.message_id.as_deref(), Some("7"));
        assert_eq!(parse(r#"{"message":{"data":null}}"#).unwrap(), Delivery::default());
    }

    #[test]
    fn json_that_is_not_an_envelope_is_the_data() {
        for body in [r#"{"gcs_path":"gs://b/o"}"#, "[1]", "\"text\"", "7", "{}"] {
            let delivery = parse(body).unwrap();
            assert_eq!(delivery, Delivery { data: body.to_owned().into(), ..Delivery::default() });
        }
    }

    #[test]
    fn metadata_of_an_unwrapped_push_is_read_from_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-goog-pubsub-message-id", "9"),
            ("x-goog-pubsub-subscription-name", "projects/p/subscriptions/s"),
            ("x-goog-pubsub-publish-time", "2026-01-01T00:00:00Z"),
            ("traceparent", "00-a-b-01"),
            ("authorization", "Bearer secret"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let body = Bytes::from_static(b"\xff not JSON");
        let expected = Delivery {
            data: body.clone(),
            attributes: attributes(&[("traceparent", "00-a-b-01")]),
            message_id: Some("9".to_owned()),
            subscription: Some("projects/p/subscriptions/s".to_owned()),
            delivery_attempt: None,
        };
        assert_eq!(Delivery::parse(&headers, &body), Ok(expected));
    }

    #[test]
    fn body_that_is_not_a_push_request_is_refused() {
        let deeply_nested = "[".repeat(1000);
        let malformed = [
            "",
            "no",
            "{",
            "\u{feff}{}",
            &deeply_nested,
            r#"{"message":"hi"}"#,
            r#"{"message":null}"#,
            r#"{"message":["aGVsbG8="]}"#,
            r#"{"message":{"data":7}}"#,
            r#"{"message":{"attributes":{"a":1}}}"#,
            r#"{"message":{"attributes":[]}}"#,
        ];
        for body in malformed {
            assert!(matches!(parse(body), Err(DeliveryError::BadJson(_))), "{body}: {:?}", parse(body));
        }
        for data in ["%%%", "aGVsbG8", "a", "aGVs bG8="] {
            let body = format!(r#"{{"message":{{"data":"{data}"}}}}"#);
            assert!(matches!(parse(&body), Err(DeliveryError::BadBase64(_))), "{body}");
        }
    }

    #[test]
    fn attributes_beyond_the_limits_of_pubsub_are_refused_and_unknown_members_are_skipped() {
        let envelope = |attributes: &BTreeMap<String, String>| {
            format!(r#"{{"message":{{"attributes":{},"x":[{{"":0}}]}},"y":[{{"":0}}]}}"#, json!(attributes))
        };
        let name = |index: usize| (format!("{index}"), String::new());
        let mut allowed: BTreeMap<String, String> = (1..100).map(name).collect();
        allowed.insert("n".repeat(256), "v".repeat(1024));
        assert_eq!(parse(&envelope(&allowed)).unwrap().attributes, allowed);
        let too_many = (0..101).map(name).collect();
        let long_name = attributes(&[(&"n".repeat(257), "")]);
        let long_value = attributes(&[("n", &"v".repeat(1025))]);
        for refused in [too_many, long_name, long_value] {
            assert!(matches!(parse(&envelope(&refused)), Err(DeliveryError::BadJson(_))));
        }
    }

    #[test]
    fn error_and_metadata_are_short_whatever_the_length_of_the_body() {
        let long = "é".repeat(100_000);
        let DeliveryError::BadJson(reason) =
            parse(&json!({"message": {"attributes": long}}).to_string()).unwrap_err()
        else {
            panic!("the attributes are not an object")
        };
        assert!(reason.len() < 300, "{} bytes", reason.len());
        let delivery =
            parse(&json!({"message": {"messageId": long}, "subscription": long}).to_string()).unwrap();
        for text in [delivery.message_id, delivery.subscription] {
            assert!(text.is_some_and(|text| text == "é".repeat(128)));
        }
    }

    #[test]
    fn created_envelope_has_the_members_of_a_pubsub_push() {
        let delivery = Delivery {
            data: Bytes::from_static(b"hello"),
            attributes: attributes(&[("b", "2"), ("a", "1 \"quoted\"")]),
            message_id: Some("17".to_owned()),
            subscription: None,
            delivery_attempt: Some(2),
        };
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let envelope = String::from_utf8(delivery.to_envelope(time)).unwrap();
        insta::assert_snapshot!(envelope, @r#"{"message":{"attributes":{"a":"1 \"quoted\"","b":"2"},"data":"aGVsbG8=","messageId":"17","message_id":"17","publishTime":"2023-11-14T22:13:20.123000Z","publish_time":"2023-11-14T22:13:20.123000Z"},"subscription":"projects/local/subscriptions/push","deliveryAttempt":2}"#);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Delivery::parse(&HeaderMap::new(), &body.into());
        }

        #[test]
        fn damaged_envelope_is_parsed_without_a_panic(
            message in "[{}\\[\\]\":,a-z0-9]{0,20}",
            data in "[A-Za-z0-9+/= -]{0,12}",
        ) {
            for body in [
                format!("{{\"message\":{message}}}"),
                format!("{{\"message\":{{\"data\":\"{data}\"}},\"deliveryAttempt\":{message}}}"),
            ] {
                let _ = Delivery::parse(&HeaderMap::new(), &body.into());
            }
        }

        #[test]
        fn created_envelope_is_parsed_to_the_same_delivery(
            data in proptest::collection::vec(any::<u8>(), 0..100),
            attributes in proptest::collection::btree_map(".{0,10}", ".{0,10}", 0..4),
            message_id in "[0-9]{1,20}",
            delivery_attempt in proptest::option::of(1..1000_u32),
        ) {
            let sent = Delivery {
                data: data.into(),
                attributes,
                message_id: Some(message_id),
                subscription: Some("projects/local/subscriptions/x".to_owned()),
                delivery_attempt,
            };
            let envelope = sent.to_envelope(SystemTime::now()).into();
            prop_assert_eq!(Delivery::parse(&HeaderMap::new(), &envelope), Ok(sent));
        }
    }
}
