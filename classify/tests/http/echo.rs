//! Tests that no text from a request makes a response or a line of the log large.

use classify::Settings;
use platform::{
    http::hostile_text::{self, header_value, percent_encode},
    telemetry::CapturedLog,
    topic::push::Delivery,
};
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::rig::{Rig, TestBucket, encode_png};

const LOG_FILTER: &str = "off,platform=debug,classify=debug";

/// Returns one request for `/classify` for each field that it can have, with `text` in that field. `short` is
/// for the fields of the head, whose size is limited.
fn classify_requests(rig: &Rig, text: &str, short: &str) -> Vec<RequestBuilder> {
    let json_request =
        |body: Value| rig.post("/classify").header("content-type", "application/json").body(body.to_string());
    let form = |form: Form| rig.post("/classify").multipart(form);
    let path = format!("gs://local/{text}");
    let escaped = percent_encode(short);
    vec![
        json_request(json!({ "gcs_path": text })),
        json_request(json!({ "gcs_path": path })),
        json_request(json!({ "gcs_path": "gs://local/good", "top_k": text })),
        json_request(json!({ "gcs_path": "gs://local/good", "threshold": text })),
        json_request(json!({ "gcs_path": { text: 1 } })),
        json_request(json!({ text: text })),
        json_request(json!(text)),
        rig.post("/classify").header("content-type", "application/json").body(text.to_owned()),
        rig.post(&format!("/classify?top_k={escaped}")).body("x"),
        rig.post(&format!("/classify?threshold={escaped}")).body("x"),
        rig.post(&format!("/classify?{escaped}=1")).body("x"),
        rig.post("/classify").header("content-type", header_value(short)).body("x"),
        rig.post("/classify")
            .header("content-type", header_value(&format!("multipart/form-data; boundary={short}")))
            .body("x"),
        rig.post("/classify").header("origin", header_value(short)).body("x"),
        rig.post_image(text.to_owned()),
        rig.post_image(encode_png()).header("x-request-id", header_value(short)),
        form(Form::new().part("file", Part::bytes(b"a".to_vec()).file_name(text.to_owned()))),
        form(Form::new().part(text.to_owned(), Part::bytes(b"a".to_vec()))),
        rig.get(&format!("/{escaped}")),
    ]
}

/// Returns one request for `/pubsub` for each field that it can have, like [`classify_requests`].
fn push_requests(rig: &Rig, text: &str, short: &str) -> Vec<RequestBuilder> {
    let data = |gcs_path: &str| json!({ "gcs_path": gcs_path }).to_string();
    let delivery = || Delivery { data: data("gs://local/missing").into(), ..Delivery::default() };
    let envelope =
        |delivery: &Delivery| rig.push_raw(delivery.to_envelope(std::time::SystemTime::UNIX_EPOCH));
    let notification = |resource: Value| {
        let attributes = [("eventType".to_owned(), "OBJECT_FINALIZE".to_owned())].into();
        envelope(&Delivery { data: resource.to_string().into(), attributes, ..Delivery::default() })
    };
    let attribute = |name: &str, value: &str| {
        envelope(&Delivery { attributes: [(name.to_owned(), value.to_owned())].into(), ..delivery() })
    };
    let cloud_event = |member: &str| {
        let mut event = json!({
            "type": "google.cloud.storage.object.v1.finalized", "id": "1", "specversion": "1.0",
            "data": { "bucket": "local", "name": "missing" },
        });
        event[member] = text.into();
        rig.post("/pubsub").header("content-type", "application/cloudevents+json").body(event.to_string())
    };
    let binary_event = |name: &'static str| {
        rig.push_raw(r#"{"bucket":"local","name":"missing"}"#)
            .header("ce-type", "google.cloud.storage.object.v1.finalized")
            .header(name, header_value(short))
    };
    vec![
        rig.push_raw(text.to_owned()),
        rig.push_raw(json!(text).to_string()),
        rig.push_raw(json!({ "message": text }).to_string()),
        rig.push_raw(json!({ "message": { "data": text } }).to_string()),
        rig.push_raw(json!({ "message": { "data": 1, "messageId": { text: 1 } } }).to_string()),
        envelope(&Delivery { message_id: Some(text.to_owned()), ..delivery() }),
        envelope(&Delivery { subscription: Some(text.to_owned()), ..delivery() }),
        rig.push(text.to_owned()),
        rig.push(data(text)),
        rig.push(data(&format!("gs://{text}/a"))),
        rig.push(data(&format!("gs://local/{text}"))),
        rig.push(data(&format!("gs://local/{text}/"))),
        rig.push(data(&format!("gs://local/{text}.prediction.json"))),
        rig.push(json!({ text: text }).to_string()),
        attribute("eventType", text),
        attribute("eventType", &format!("OBJECT_{text}")),
        attribute("traceparent", text),
        attribute(text, text),
        notification(json!({ "bucket": text, "name": "a" })),
        notification(json!({ "bucket": "local", "name": text })),
        notification(json!({ "bucket": "local", "name": "text", "contentType": text })),
        notification(json!({ "bucket": "local", "name": "missing", "generation": text })),
        cloud_event("type"),
        cloud_event("id"),
        cloud_event("data"),
        cloud_event("data_base64"),
        cloud_event("traceparent"),
        cloud_event("subject"),
        binary_event("ce-id"),
        binary_event("ce-subject"),
        binary_event("ce-traceparent"),
        rig.push_raw("{}").header("ce-type", header_value(short)),
        rig.push_raw(data("gs://local/missing")).header("x-goog-pubsub-message-id", header_value(short)),
        rig.push_raw(data("gs://local/missing"))
            .header("x-goog-pubsub-subscription-name", header_value(short)),
    ]
}

#[test]
fn responses_and_log_lines_are_shorter_than_8_kib_whatever_a_request_contains() {
    // All tasks run on this thread, whose log is captured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = CapturedLog::start(LOG_FILTER);
    let rig = runtime.block_on(async {
        let rig = Rig::with_espresso_engine_on(TestBucket::default(), Settings::default()).await;
        rig.store("good", encode_png()).await;
        rig.store("text", "hello").await;
        rig
    });
    hostile_text::check_responses_and_log(&runtime, &log, |text, short| {
        let mut requests = classify_requests(&rig, text, short);
        requests.extend(push_requests(&rig, text, short));
        requests
    });
}
