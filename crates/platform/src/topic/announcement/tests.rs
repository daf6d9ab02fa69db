//! Tests the parsing of deliveries that look like those of Pub/Sub, Cloud Storage and Eventarc.

use std::time::UNIX_EPOCH;

use axum::http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn receive(pairs: &[(&'static str, &str)], body: impl ToString) -> ReceivedEvent {
    parse_request(&headers(pairs), &Bytes::from(body.to_string()))
}

/// Returns the resource of an object, as a notification or a CloudEvent contains it.
fn resource() -> Value {
    json!({
        "kind": "storage#object",
        "id": "photos/täglich/cat 1.jpg/1587627537231057",
        "selfLink": "https://www.googleapis.com/storage/v1/b/photos/o/t%C3%A4glich%2Fcat%201.jpg",
        "name": "täglich/cat 1.jpg",
        "bucket": "photos",
        "generation": "1587627537231057",
        "metageneration": "1",
        "contentType": "image/jpeg",
        "timeCreated": "2026-04-23T07:38:57.230Z",
        "updated": "2026-04-23T07:38:57.230Z",
        "storageClass": "STANDARD",
        "size": "352",
        "md5Hash": "bCbCSRnXX2eYMMMqMrkAaQ==",
        "mediaLink": "https://storage.googleapis.com/download/storage/v1/b/photos/o/t%C3%A4glich%2Fcat%201.jpg?generation=1587627537231057&alt=media",
        "crc32c": "rTVTeQ==",
        "etag": "CNHZkbuF/ugCEAE=",
    })
}

/// Returns the attributes of a notification.
fn attributes(event_type: &str, payload_format: &str) -> Vec<(&'static str, String)> {
    [
        ("bucketId", "photos"),
        ("eventTime", "2026-04-23T07:38:57.230Z"),
        ("eventType", event_type),
        ("notificationConfig", "projects/_/buckets/photos/notificationConfigs/6"),
        ("objectGeneration", "1587627537231057"),
        ("objectId", "täglich/cat 1.jpg"),
        ("overwroteGeneration", "1587627537000000"),
        ("payloadFormat", payload_format),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// Returns the envelope of a wrapped push request.
fn wrapped(data: impl ToString, attributes: &[(&str, String)]) -> Value {
    let delivery = Delivery {
        data: data.to_string().into(),
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        message_id: Some("2070443601311540".to_owned()),
        subscription: Some("projects/p/subscriptions/s".to_owned()),
        delivery_attempt: None,
    };
    serde_json::from_slice(&delivery.to_envelope(UNIX_EPOCH)).unwrap()
}

fn contract_message() -> Value {
    json!({"gcs_path": "gs://photos/a/image.jpg", "id": 7, "kind": "storage#object", "new": {"field": [1]}})
}

/// Returns the headers of a binary CloudEvent.
fn cloud_event_headers(event_type: &str) -> [(&'static str, &str); 9] {
    [
        ("ce-id", "1096434104173400"),
        ("ce-source", "//storage.googleapis.com/projects/_/buckets/photos"),
        ("ce-specversion", "1.0"),
        ("ce-type", event_type),
        ("ce-time", "2026-04-23T07:38:57.230Z"),
        ("ce-subject", "objects/t%C3%A4glich/cat%201.jpg"),
        ("ce-bucket", "photos"),
        ("content-type", "application/json; charset=utf-8"),
        ("traceparent", TRACE),
    ]
}

/// Returns a structured CloudEvent. `data` is the name and the value of the member that contains the data.
fn structured(event_type: &str, data: (&str, Value)) -> Value {
    let mut event = json!({
        "specversion": "1.0",
        "id": "1096434104173400",
        "type": event_type,
        "source": "//storage.googleapis.com/projects/_/buckets/photos",
        "subject": "objects/täglich/cat 1.jpg",
        "bucket": "photos",
        "time": "2026-04-23T07:38:57.230Z",
        "datacontenttype": "application/json",
        "traceparent": TRACE,
    });
    event[data.0] = data.1;
    event
}

const STRUCTURED_HEADERS: [(&str, &str); 1] =
    [("content-type", "application/CloudEvents+json; charset=utf-8")];

fn base64(data: impl ToString) -> Value {
    BASE64_STANDARD.encode(data.to_string()).into()
}

#[test]
fn contract_message_is_parsed_in_every_form() {
    let expected = EventContent::Image(Announcement {
        gcs_path: "gs://photos/a/image.jpg".to_owned(),
        announcer: Announcer::Publisher,
        generation: None,
        content_type: None,
    });
    let metadata = [("x-goog-pubsub-message-id", "2070443601311540"), ("traceparent", TRACE)];
    let trace = [("traceparent", TRACE.to_owned())];
    let envelope = || wrapped(contract_message(), &trace);
    for (form, got, has_metadata) in [
        ("wrapped", receive(&[], envelope()), true),
        ("unwrapped", receive(&[], contract_message()), false),
        ("unwrapped, with metadata", receive(&metadata, contract_message()), true),
        ("through Eventarc", receive(&cloud_event_headers(MESSAGE_PUBLISHED), envelope()), true),
        (
            "through Eventarc, structured",
            receive(&STRUCTURED_HEADERS, structured(MESSAGE_PUBLISHED, ("data", envelope()))),
            true,
        ),
    ] {
        assert_eq!(got.content, Ok(expected.clone()), "{form}");
        assert_eq!(got.message_id, has_metadata.then(|| "2070443601311540".to_owned()), "{form}");
        assert_eq!(got.traceparent, has_metadata.then(|| TRACE.to_owned()), "{form}");
    }
}

#[test]
fn new_object_is_parsed_in_every_form() {
    let expected = |content_type: Option<&str>, generation| {
        Ok(EventContent::Image(Announcement {
            gcs_path: "gs://photos/täglich/cat 1.jpg".to_owned(),
            announcer: Announcer::Bucket,
            generation,
            content_type: content_type.map(str::to_owned),
        }))
    };
    let with_data = attributes(OBJECT_FINALIZE, "JSON_API_V1");
    let without_data = attributes(OBJECT_FINALIZE, "NONE");
    let full = expected(Some("image/jpeg"), Some(1_587_627_537_231_057));
    // A header cannot contain `täglich`, so the object's name must be read from the data.
    let as_headers = [
        ("x-goog-pubsub-message-id", "1"),
        ("eventtype", OBJECT_FINALIZE),
        ("bucketid", "photos"),
        ("objectid", "t?glich/cat 1.jpg"),
        ("objectgeneration", "1587627537231057"),
        ("payloadformat", "JSON_API_V1"),
    ];
    let notification = || wrapped(resource(), &with_data);
    for (form, got, expected) in [
        ("wrapped", receive(&[], notification()), full.clone()),
        (
            "wrapped, without data",
            receive(&[], wrapped("", &without_data)),
            expected(None, Some(1_587_627_537_231_057)),
        ),
        ("unwrapped, with metadata", receive(&as_headers, resource()), full.clone()),
        ("unwrapped", receive(&[], resource()), full.clone()),
        ("binary CloudEvent", receive(&cloud_event_headers(CLOUD_EVENT_FINALIZED), resource()), full.clone()),
        (
            "structured CloudEvent",
            receive(&STRUCTURED_HEADERS, structured(CLOUD_EVENT_FINALIZED, ("data", resource()))),
            full.clone(),
        ),
        (
            "structured CloudEvent in base64",
            receive(
                &STRUCTURED_HEADERS,
                structured(CLOUD_EVENT_FINALIZED, ("data_base64", base64(resource()))),
            ),
            full.clone(),
        ),
        (
            "notification through Eventarc",
            receive(&cloud_event_headers(MESSAGE_PUBLISHED), notification()),
            full.clone(),
        ),
    ] {
        assert_eq!(got.content, expected, "{form}");
    }
    assert_eq!(receive(&[], notification()).message_id.as_deref(), Some("2070443601311540"));
    for event in [
        receive(&cloud_event_headers(CLOUD_EVENT_FINALIZED), resource()),
        receive(&STRUCTURED_HEADERS, structured(CLOUD_EVENT_FINALIZED, ("data", resource()))),
    ] {
        assert_eq!(event.message_id.as_deref(), Some("1096434104173400"));
        assert_eq!(event.traceparent.as_deref(), Some(TRACE));
    }
}

#[test]
fn object_name_is_read_from_a_header_if_there_is_no_data() {
    let got = receive(
        &[
            ("x-goog-pubsub-message-id", "1"),
            ("eventtype", OBJECT_FINALIZE),
            ("bucketid", "photos"),
            ("objectid", "cat.jpg"),
            ("objectgeneration", "5"),
            ("payloadformat", "NONE"),
        ],
        "",
    );
    let Ok(EventContent::Image(image)) = got.content else { panic!("{got:?}") };
    assert_eq!((image.gcs_path.as_str(), image.generation), ("gs://photos/cat.jpg", Some(5)));
}

#[test]
fn other_event_types_announce_no_image() {
    for event_type in ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE"] {
        let got = receive(&[], wrapped(resource(), &attributes(event_type, "JSON_API_V1")));
        let Ok(EventContent::NoImage(reason)) = &got.content else { panic!("{got:?}") };
        assert!(reason.contains(event_type), "{reason}");
    }
    let long = "x".repeat(10_000);
    for event_type in [
        "google.cloud.storage.object.v1.deleted",
        "google.cloud.storage.object.v1.metadataUpdated",
        "google.cloud.storage.object.v1.archived",
        "google.cloud.audit.log.v1.written",
        "",
        &long,
    ] {
        for got in [
            receive(&cloud_event_headers(event_type), resource()),
            receive(&STRUCTURED_HEADERS, structured(event_type, ("data", resource()))),
        ] {
            let Ok(EventContent::NoImage(reason)) = &got.content else { panic!("{got:?}") };
            assert!(reason.len() < 200, "{reason}");
            assert!(event_type.len() > 100 || reason.contains(event_type), "{reason}");
        }
    }
}

#[test]
fn missing_or_invalid_required_member_is_an_error() {
    let resource_without_name = json!({"kind": "storage#object", "bucket": "photos"});
    let malformed: [(&[(&'static str, &str)], String); 10] = [
        (&[], String::new()),
        (&[], "not JSON".to_owned()),
        (&[], "[]".to_owned()),
        (&[], json!({"path": "gs://b/o"}).to_string()),
        (&[], json!({"gcs_path": 7, "name": "n", "bucket": "b"}).to_string()),
        (&[], wrapped("{}", &[]).to_string()),
        (&[], resource_without_name.to_string()),
        (&[("ce-type", CLOUD_EVENT_FINALIZED)], resource_without_name.to_string()),
        (&[("ce-type", CLOUD_EVENT_FINALIZED)], String::new()),
        (&STRUCTURED_HEADERS, json!({"data": resource()}).to_string()),
    ];
    for (headers, body) in malformed {
        let got = receive(headers, &body);
        assert!(matches!(got.content, Err(DeliveryError::BadJson(_))), "{body}: {got:?}");
    }
    for got in [
        receive(&[], json!({"message": {"data": "*"}})),
        receive(&[("ce-type", MESSAGE_PUBLISHED)], json!({"message": {"data": "*"}})),
        receive(&STRUCTURED_HEADERS, structured(CLOUD_EVENT_FINALIZED, ("data_base64", "*".into()))),
    ] {
        assert!(matches!(got.content, Err(DeliveryError::BadBase64(_))), "{got:?}");
    }
    // The id is returned even if the data is invalid.
    let got = receive(&[], wrapped("not JSON", &[]));
    assert_eq!(got.message_id.as_deref(), Some("2070443601311540"));
}

#[test]
fn invalid_optional_member_is_ignored() {
    for generation in [json!("many"), json!("99999999999999999999"), json!(1.5), json!(null), json!([])] {
        let mut object = resource();
        object["generation"] = generation.clone();
        object["contentType"] = json!("");
        let got = receive(&[], object);
        let Ok(EventContent::Image(image)) = got.content else { panic!("{got:?}") };
        assert_eq!((image.generation, image.content_type), (None, None), "{generation}");
    }
    let mut object = resource();
    object["generation"] = json!(5);
    let got = receive(&[], object);
    assert!(matches!(got.content, Ok(EventContent::Image(Announcement { generation: Some(5), .. }))));
    for trace in
        ["", "00-a-b-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0!", &"0".repeat(129)]
    {
        let got = receive(&[], wrapped(contract_message(), &[(TRACEPARENT, trace.to_owned())]));
        assert_eq!(got.traceparent, None, "{trace}");
    }
}

#[test]
fn pulled_delivery_is_parsed_like_a_pushed_one() {
    let envelope = wrapped(resource(), &attributes(OBJECT_FINALIZE, "JSON_API_V1"));
    let pulled = Delivery::parse(&HeaderMap::new(), &envelope.to_string().into()).unwrap();
    assert_eq!(parse_delivery(&pulled), receive(&[], envelope));
}

proptest! {
    #[test]
    fn any_request_is_parsed_without_a_panic(
        chosen in proptest::collection::vec(
            (0_usize..10, prop_oneof![
                Just(CLOUD_EVENT_FINALIZED.to_owned()),
                Just(MESSAGE_PUBLISHED.to_owned()),
                Just(OBJECT_FINALIZE.to_owned()),
                Just(STRUCTURED_CONTENT_TYPE.to_owned()),
                "[ -~]{0,20}",
            ]),
            0..6,
        ),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "[{}\\[\\]\":,a-z0-9]{0,40}".prop_map(String::into_bytes),
            ("(type|data|data_base64|message|bucket|name|kind|gcs_path)", "[ -~]{0,20}")
                .prop_map(|(member, text)| json!({"type": CLOUD_EVENT_FINALIZED, "name": "n", (member): text}).to_string().into_bytes()),
        ],
    ) {
        const HEADER_NAMES: [&str; 10] = [
            "ce-type", "ce-id", "content-type", "traceparent", "eventtype", "bucketid", "objectid",
            "objectgeneration", "x-goog-pubsub-message-id", "ce-traceparent",
        ];
        let headers: HeaderMap = chosen
            .iter()
            .map(|(index, value)| {
                (HeaderName::from_static(HEADER_NAMES[*index]), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        let received = parse_request(&headers, &body.into());
        if let Ok(EventContent::Image(image)) = received.content {
            prop_assert!(image.announcer == Announcer::Publisher || image.gcs_path.starts_with("gs://"));
            prop_assert!(image.content_type.is_none_or(|content_type| !content_type.is_empty()));
        }
    }
}
