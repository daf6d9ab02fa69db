//! Tests of the limits on bodies and on memory.
//!
//! The first test sends bodies of exactly the maximum length and of one byte more, in every way a body can
//! arrive.

use std::time::Duration;

use classify::Settings;
use platform::http::test_client::{Framing, send};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::rig::{Rig, TestBucket, encode_png, read_json, read_problem};

/// Maximum length of an image. It exceeds axum's default limit on bodies, 2 MiB.
const MAX_IMAGE_BYTES: usize = 3 << 20;
/// Maximum length of a body.
const MAX_BODY_BYTES: usize = 4 << 20;
/// Maximum length of the JSON of a request.
const MAX_JSON_BYTES: usize = 100_000;
/// Maximum length of an event.
const MAX_EVENT_BYTES: usize = 200_000;

const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data; boundary=BOUNDARY";

/// Builds a PNG of `length` bytes. The decoder ignores the bytes after the end of the image.
fn png_of_length(length: usize) -> Vec<u8> {
    let mut png = encode_png();
    png.resize(length, 0);
    png
}

/// Builds a form of `length` bytes whose field `file` is a PNG of `file_length` bytes. A second field, which
/// the service ignores, fills the rest.
fn form_of_length(length: usize, file_length: usize) -> Vec<u8> {
    let field = |name: &str| format!("--BOUNDARY\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    let mut form = field("file").into_bytes();
    form.extend(png_of_length(file_length));
    form.extend(format!("\r\n{}", field("comment")).into_bytes());
    let end = b"\r\n--BOUNDARY--\r\n";
    form.resize(length - end.len(), b'x');
    form.extend(end);
    form
}

/// Appends spaces to JSON until it has `length` bytes.
fn json_of_length(length: usize, value: &Value) -> Vec<u8> {
    let mut json = value.to_string().into_bytes();
    json.resize(length, b' ');
    json
}

#[tokio::test]
async fn body_of_the_maximum_length_is_accepted_and_one_more_byte_is_refused_in_every_form() {
    let settings = Settings {
        max_image_bytes: MAX_IMAGE_BYTES,
        max_body_bytes: MAX_BODY_BYTES,
        max_json_bytes: MAX_JSON_BYTES,
        max_event_bytes: MAX_EVENT_BYTES,
        ..Settings::default()
    };
    let rig = Rig::with_espresso_engine_on(TestBucket::default(), settings).await;
    rig.store("photo.png", encode_png()).await;
    let path = json!({ "gcs_path": "gs://local/photo.png" });
    let form = |length| form_of_length(length, 1000);
    let form_with_file = |file_length| form_of_length(file_length + 1000, file_length);
    let json = |length| json_of_length(length, &path);

    type Case<'a> = (&'a str, &'a str, usize, &'a str, &'a dyn Fn(usize) -> Vec<u8>);
    let cases: [Case; 4] = [
        ("/classify", "image/png", MAX_IMAGE_BYTES, "too_large", &png_of_length),
        ("/classify", FORM, MAX_IMAGE_BYTES, "too_large", &form_with_file),
        ("/classify", FORM, MAX_BODY_BYTES, "body_too_large", &form),
        ("/classify", JSON, MAX_JSON_BYTES, "body_too_large", &json),
    ];
    for (route, content_type, limit, kind, build) in cases {
        for framing in Framing::ALL {
            let context = format!("{route} {content_type} {framing:?} {limit}");
            let (status, response) = send(rig.address(), route, content_type, framing, &build(limit)).await;
            assert_eq!(status, 200, "{context}: {response}");
            let (status, response) =
                send(rig.address(), route, content_type, framing, &build(limit + 1)).await;
            assert_eq!(status, 413, "{context}: {response}");
            let problem: Value = serde_json::from_str(&response).unwrap();
            assert_eq!(problem["kind"], kind, "{context}: {problem}");
        }
    }
    for framing in Framing::ALL {
        for (length, status) in [(MAX_EVENT_BYTES, "duplicate"), (MAX_EVENT_BYTES + 1, "dead")] {
            let (code, response) = send(rig.address(), "/pubsub", JSON, framing, &json(length)).await;
            let body: Value = serde_json::from_str(&response).unwrap();
            assert_eq!((code, &body["status"]), (200, &status.into()), "{framing:?} {length}: {body}");
        }
        let body = png_of_length(MAX_BODY_BYTES + 1);
        let (status, response) = send(rig.address(), "/classify", "image/png", framing, &body).await;
        assert_eq!((status, response.contains("\"body_too_large\"")), (413, true), "{framing:?}: {response}");
    }
}

#[tokio::test]
async fn event_above_the_maximum_length_of_a_body_is_dead_and_not_refused() {
    let settings = Settings { max_body_bytes: MAX_BODY_BYTES, ..Settings::default() };
    let rig = Rig::with_espresso_engine_on(TestBucket::default(), settings).await;
    let event = json_of_length(MAX_BODY_BYTES + 1, &json!({ "gcs_path": "gs://local/photo.png" }));
    let (status, response) = send(rig.address(), "/pubsub", JSON, Framing::ContentLength, &event).await;
    let body: Value = serde_json::from_str(&response).unwrap();
    assert_eq!((status, &body["status"], &body["reason"]), (200, &json!("dead"), &json!("event_too_large")));
}

#[tokio::test]
async fn image_that_needs_too_much_memory_is_refused_with_422_and_its_event_is_recorded_as_dead() {
    let settings = Settings { max_image_memory: 100_000, ..Settings::default() };
    let rig = Rig::with_espresso_engine_on(TestBucket::default(), settings).await;
    assert_eq!(read_problem(rig.post_image(encode_png()).send().await).await, (422, "too_large".to_owned()));
    rig.store("photo.png", encode_png()).await;
    let (status, body) = read_json(rig.push_event("photo.png").send().await).await;
    assert_eq!((status, &body["status"], &body["reason"]), (200, &json!("dead"), &json!("too_large")));
    let record = rig.stored("photo.png.prediction.json").await.unwrap();
    assert_eq!(record["error"]["reason"], "too_large");
}

/// Starts a request with a form of `length` bytes and sends all but its last byte.
async fn start_stalled_form(rig: &Rig, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(rig.address()).await.unwrap();
    let head = format!(
        "POST /classify HTTP/1.1\r\nHost: test\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut form = b"--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n".to_vec();
    form.resize(length - 1, 0);
    stream.write_all(&form).await.unwrap();
    stream
}

#[tokio::test]
async fn event_without_memory_is_refused_and_classified_once_memory_is_released() {
    let max_body_bytes = 16 << 20;
    // One form of the maximum length fills the memory for files.
    let settings = Settings {
        max_body_bytes,
        max_image_bytes: 1 << 20,
        max_memory: max_body_bytes + (64 << 20),
        queue_timeout: Duration::from_millis(20),
        ..Settings::default()
    };
    let rig = Rig::with_espresso_engine_on(TestBucket::default(), settings).await;
    let stalled = start_stalled_form(&rig, max_body_bytes).await;
    // The service may still be reading the stalled form.
    let (name, refused) = loop {
        let name = format!("{}.png", rig.bucket.names().len());
        rig.store(&name, encode_png()).await;
        let response = rig.push_event(&name).send().await;
        if response.as_ref().unwrap().status() != 200 {
            break (name, response);
        }
    };
    assert_eq!(read_problem(refused).await, (429, "overloaded".to_owned()));
    let record = format!("{name}.prediction.json");
    assert!(rig.stored(&record).await.is_none(), "a lack of memory is not recorded as a failure");
    drop(stalled);
    while rig.push_event(&name).send().await.unwrap().status() != 200 {}
    assert!(rig.stored(&record).await.unwrap()["label"].is_string());
}
