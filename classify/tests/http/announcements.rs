//! Tests of every form of announcement, and of announcements that do not lead to a prediction.
//!
//! An event, which is a delivered announcement, is dead if it can never be classified. An event is ignored if
//! it is not for this service. The service acknowledges dead and ignored events.

use std::{collections::BTreeSet, time::SystemTime};

use classify::Settings;
use platform::topic::push::Delivery;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::rig::{Rig, TestBucket, build_notification, build_resource, encode_png, read_json};

/// Type of the CloudEvent that announces a new object in a bucket.
const FINALIZED: &str = "google.cloud.storage.object.v1.finalized";
/// Type of the CloudEvent that contains a message of a Pub/Sub topic.
const MESSAGE_PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";

async fn start_rig() -> Rig {
    Rig::with_espresso_engine_on(TestBucket::with_generations(), Settings::default()).await
}

/// Builds a push of a CloudEvent in binary mode, as Eventarc sends it.
fn push_binary_event(rig: &Rig, event_type: &str, data: impl Into<reqwest::Body>) -> RequestBuilder {
    rig.push_raw(data)
        .header("ce-type", event_type)
        .header("ce-id", "1096434104173400")
        .header("ce-source", "//storage.googleapis.com/projects/_/buckets/local")
        .header("ce-specversion", "1.0")
}

/// Builds a push of a CloudEvent in structured mode. The member `data_member` of the event holds `data`.
fn push_structured_event(rig: &Rig, data_member: &str, data: Value) -> RequestBuilder {
    let mut event =
        json!({"specversion": "1.0", "id": "1", "type": FINALIZED, "datacontenttype": "application/json"});
    event[data_member] = data;
    rig.post("/pubsub").header("content-type", "application/cloudevents+json").body(event.to_string())
}

/// Returns the envelope in which Pub/Sub pushes `delivery`.
fn envelope_of(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.to_envelope(SystemTime::now())).unwrap()
}

/// Builds one push for every form of announcement of the image `name`. Returns each push with a description.
///
/// A message is an announcement by preprocess, and a notification is an announcement by Cloud Storage. The
/// body of an unwrapped push is the data of the message or notification, without the envelope of Pub/Sub. The
/// headers of an unwrapped push can contain the metadata.
fn announce_in_every_form(rig: &Rig, name: &str, generation: i64) -> Vec<(&'static str, RequestBuilder)> {
    let path = format!("gs://local/{name}");
    let message = json!({ "gcs_path": path }).to_string();
    let resource = build_resource(name, generation, "image/png");
    let notification = build_notification("OBJECT_FINALIZE", name, generation, "image/png");
    let notification_without_payload = Delivery { data: bytes::Bytes::new(), ..notification.clone() };
    let mut unwrapped_notification =
        rig.post("/pubsub").body(resource.to_string()).header("x-goog-pubsub-message-id", "1");
    for (name, value) in &notification.attributes {
        unwrapped_notification = unwrapped_notification.header(name, value);
    }
    let delivery = Delivery { data: message.clone().into(), ..Delivery::default() };
    vec![
        ("message", rig.push(message.clone())),
        ("message, unwrapped", rig.push_raw(message.clone())),
        (
            "message, unwrapped, with metadata",
            rig.post("/pubsub").body(message).header("x-goog-pubsub-message-id", "1"),
        ),
        (
            "message, through Eventarc",
            push_binary_event(rig, MESSAGE_PUBLISHED, envelope_of(&delivery).to_string()),
        ),
        ("notification", rig.push_delivery(&notification)),
        ("notification without a payload", rig.push_delivery(&notification_without_payload)),
        ("notification, unwrapped", rig.push_raw(resource.to_string())),
        ("notification, unwrapped, with metadata", unwrapped_notification),
        (
            "notification, through Eventarc",
            push_binary_event(rig, MESSAGE_PUBLISHED, envelope_of(&notification).to_string()),
        ),
        ("binary CloudEvent", push_binary_event(rig, FINALIZED, resource.to_string())),
        ("structured CloudEvent", push_structured_event(rig, "data", resource.clone())),
        (
            "structured CloudEvent in base64",
            push_structured_event(rig, "data_base64", envelope_of(&notification)["message"]["data"].clone()),
        ),
    ]
}

#[tokio::test]
async fn image_is_classified_for_every_form_of_announcement() {
    let rig = start_rig().await;
    let form_count = announce_in_every_form(&rig, "x", 1).len();
    for index in 0..form_count {
        let name = format!("photos/{index}.png");
        rig.store(&name, encode_png()).await;
        let (form, request) = announce_in_every_form(&rig, &name, 1).swap_remove(index);
        let (status, body) = read_json(request.send().await).await;
        assert_eq!((status, &body["status"]), (200, &json!("ok")), "{form}: {body}");
        assert_eq!(body["gcs_path"], format!("gs://local/{name}"), "{form}");
        let record = rig.stored(&format!("{name}.1.prediction.json")).await;
        assert_eq!(record.unwrap()["label"], body["label"], "{form}");
    }
    assert_eq!(rig.classified_count(), form_count);
}

#[tokio::test]
async fn image_announced_in_every_form_is_classified_once() {
    let rig = start_rig().await;
    let preprocessed_name = "0123456789abcdef0123456789abcdef/image.jpg";
    for (name, prediction_name) in [
        ("photos/cat.png", "photos/cat.png.1.prediction.json"),
        (preprocessed_name, "0123456789abcdef0123456789abcdef/prediction.json"),
    ] {
        rig.store(name, encode_png()).await;
        let count_before = rig.classified_count();
        let mut statuses = Vec::new();
        for (_, request) in announce_in_every_form(&rig, name, 1) {
            statuses.push(read_json(request.send().await).await.1["status"].clone());
        }
        let (first, rest) = statuses.split_first().unwrap();
        assert!(first == "ok" && rest.iter().all(|status| status == "duplicate"), "{statuses:?}");
        assert_eq!(rig.classified_count(), count_before + 1);
        assert!(rig.stored(prediction_name).await.is_some());
    }
    assert_eq!(rig.results.messages().len(), 2);
    assert_eq!(rig.bucket.names().len(), 4, "{:?}", rig.bucket.names());
}

#[tokio::test]
async fn announcements_of_the_predictions_of_this_service_are_ignored() {
    let rig = start_rig().await;
    let image_names = ["0123456789abcdef0123456789abcdef/image.jpg", "photos/cat.png", "broken.jpg"];
    for name in image_names {
        let image = if name == "broken.jpg" { b"\xff\xd8\xff\xe0".to_vec() } else { encode_png() };
        rig.store(name, image).await;
    }
    // The loop announces the images, then the predictions that the service has stored. It ends when an
    // iteration finds no new object in the bucket.
    let mut announced_names = BTreeSet::new();
    loop {
        let new_names: Vec<String> =
            rig.bucket.names().into_iter().filter(|name| !announced_names.contains(name)).collect();
        if new_names.is_empty() {
            break;
        }
        for name in new_names {
            let is_prediction = !image_names.contains(&name.as_str());
            for (form, request) in announce_in_every_form(&rig, &name, 1) {
                let (status, body) = read_json(request.send().await).await;
                assert_eq!(status, 200, "{name}, {form}: {body}");
                assert_eq!(body["status"] == "ignored", is_prediction, "{name}, {form}: {body}");
                assert_eq!(body["reason"] == "our_prediction", is_prediction, "{name}, {form}: {body}");
            }
            announced_names.insert(name);
        }
    }
    assert_eq!(announced_names.len(), 2 * image_names.len(), "{announced_names:?}");
    assert_eq!(rig.classified_count(), 2);
    assert_eq!(rig.results.messages().len(), image_names.len());
}

#[tokio::test]
async fn each_version_of_an_object_gets_its_own_prediction() {
    let rig = start_rig().await;
    let status_of = async |request: RequestBuilder| read_json(request.send().await).await.1["status"].clone();
    rig.store("cat.png", encode_png()).await;
    assert_eq!(status_of(rig.push_notification("cat.png", 1)).await, "ok");
    assert_eq!(rig.bucket.replace("cat.png", encode_png()), 2);
    assert_eq!(status_of(rig.push_notification("cat.png", 2)).await, "ok");
    assert_eq!(rig.classified_count(), 2);
    // The next three events announce an earlier version, no version, and a version that is not in the bucket.
    assert_eq!(status_of(rig.push_notification("cat.png", 1)).await, "duplicate");
    assert_eq!(status_of(rig.push_event("cat.png")).await, "duplicate");
    assert_eq!(status_of(rig.push_notification("cat.png", 9)).await, "duplicate");
    let request = rig.post("/classify").json(&json!({"gcs_path": "gs://local/cat.png"}));
    assert_eq!(read_json(request.send().await).await.1["duplicate"], true);
    assert_eq!(rig.classified_count(), 2);
    let names = ["cat.png", "cat.png.1.prediction.json", "cat.png.2.prediction.json"];
    assert_eq!(rig.bucket.names(), names);

    // `POST /classify` with a path also treats a new version as a new image.
    assert_eq!(rig.bucket.replace("cat.png", encode_png()), 3);
    let request = rig.post("/classify").json(&json!({"gcs_path": "gs://local/cat.png"}));
    assert_eq!(read_json(request.send().await).await.1["duplicate"], false);
    assert!(rig.stored("cat.png.3.prediction.json").await.is_some());
}

#[tokio::test]
async fn prefix_filters_notifications_of_the_bucket_but_not_messages() {
    let settings = Settings { prefix: "photos/".to_owned(), ..Settings::default() };
    let rig = Rig::with_espresso_engine_on(TestBucket::with_generations(), settings).await;
    for name in ["photos/cat.png", "photos.png", "other/photos/cat.png"] {
        rig.store(name, encode_png()).await;
        let (_, body) = read_json(rig.push_notification(name, 1).send().await).await;
        if name == "photos/cat.png" {
            assert_eq!(body["status"], "ok", "{body}");
        } else {
            assert_eq!(
                (&body["status"], &body["reason"]),
                (&json!("ignored"), &json!("other_prefix")),
                "{body}"
            );
            let (_, body) = read_json(rig.push_event(name).send().await).await;
            assert_eq!(body["status"], "ok", "the prefix does not apply to messages: {body}");
        }
    }
}

#[tokio::test]
async fn notifications_of_other_files_are_ignored_and_those_of_broken_images_are_dead() {
    let settings = Settings { max_image_bytes: 1000, ..Settings::default() };
    let rig = Rig::with_espresso_engine_on(TestBucket::with_generations(), settings).await;
    let large = vec![0; 1001];
    let webp = b"RIFF\x10\0\0\0WEBPVP8 \0\0\0\0".to_vec();
    let broken = b"\xff\xd8\xff\xe0 and no more".to_vec();
    // Each row has the content type, the content, the status and reason in the response, and true if a record
    // is stored.
    let table: [(&str, Vec<u8>, &str, &str, bool); 11] = [
        ("image/png", encode_png(), "ok", "", true),
        ("IMAGE/PNG; name=cat", encode_png(), "ok", "", true),
        ("application/octet-stream", encode_png(), "ok", "", true),
        ("", encode_png(), "ok", "", true),
        ("text/plain", encode_png(), "ignored", "not_an_image", false),
        ("image/png", b"hello".to_vec(), "ignored", "not_an_image", false),
        ("application/octet-stream", Vec::new(), "ignored", "not_an_image", false),
        ("application/octet-stream", large.clone(), "ignored", "too_large", false),
        ("image/png", large, "dead", "too_large", true),
        ("application/octet-stream", broken, "dead", "not_an_image", true),
        ("image/webp", webp, "dead", "unsupported_format", true),
    ];
    for (row, (content_type, content, expected_status, reason, has_record)) in table.into_iter().enumerate() {
        let name = format!("{row}");
        rig.store(&name, content).await;
        // The second announcement is answered from the record, if there is one.
        for repeated in [false, true] {
            let delivery = build_notification("OBJECT_FINALIZE", &name, 1, content_type);
            let (status, body) = read_json(rig.push_delivery(&delivery).send().await).await;
            let expected_status =
                if repeated && expected_status == "ok" { "duplicate" } else { expected_status };
            assert_eq!((status, &body["status"]), (200, &json!(expected_status)), "{row}: {body}");
            assert_eq!(body["reason"].as_str().unwrap_or_default(), reason, "{row}: {body}");
            let record = rig.stored(&format!("{name}.1.prediction.json")).await;
            assert_eq!(record.is_some(), has_record, "{row}");
            if expected_status == "dead" {
                assert_eq!(record.unwrap()["error"]["reason"], reason, "{row}");
            }
        }
    }
    assert_eq!(rig.classified_count(), 4);
}

#[tokio::test]
async fn notifications_of_anything_but_a_new_object_are_ignored() {
    let rig = start_rig().await;
    rig.store("cat.png", encode_png()).await;
    let resource = build_resource("cat.png", 1, "image/png").to_string();
    let delivery = |event_type| build_notification(event_type, "cat.png", 1, "image/png");
    for request in [
        rig.push_delivery(&delivery("OBJECT_DELETE")),
        rig.push_delivery(&delivery("OBJECT_METADATA_UPDATE")),
        rig.push_delivery(&delivery("OBJECT_ARCHIVE")),
        push_binary_event(&rig, "google.cloud.storage.object.v1.deleted", resource.clone()),
        push_binary_event(&rig, "google.cloud.audit.log.v1.written", resource),
    ] {
        let (status, body) = read_json(request.send().await).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!((&body["status"], &body["reason"]), (&json!("ignored"), &json!("other_event")), "{body}");
    }
    assert_eq!(rig.bucket.names(), ["cat.png"]);
}

#[tokio::test]
async fn events_of_missing_objects_or_other_buckets_are_dead_and_those_of_folders_are_ignored() {
    let rig = start_rig().await;
    let (_, body) = read_json(rig.push_notification("gone.png", 1).send().await).await;
    assert_eq!(body["reason"], "no_such_object", "{body}");
    let mut resource = build_resource("cat.png", 1, "image/png");
    resource["bucket"] = json!("other");
    let (_, body) = read_json(push_binary_event(&rig, FINALIZED, resource.to_string()).send().await).await;
    assert_eq!(body["reason"], "wrong_bucket", "{body}");
    let (_, body) = read_json(rig.push_notification("photos/", 1).send().await).await;
    assert_eq!((&body["status"], &body["reason"]), (&json!("ignored"), &json!("folder")), "{body}");
}
