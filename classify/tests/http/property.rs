//! Tests that random pushes and requests get a documented response, and never a 5xx status.

use classify::announcements::Outcome;
use platform::topic::push::Delivery;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::rig::{Rig, encode_png};

fn test_runner() -> TestRunner {
    TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() })
}

/// Generates random bytes, valid events, and events that are almost valid.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let noise = || proptest::collection::vec(any::<u8>(), 0..300);
    let path = prop_oneof![
        Just("gs://local/good".to_owned()),
        Just("gs://local/text".to_owned()),
        "(gs://)?(local|other)?/[a-z./]{0,20}",
        any::<String>(),
    ];
    let event = path.prop_map(|path| json!({ "gcs_path": path }).to_string().into_bytes());
    let data = prop_oneof![noise(), event];
    let wrapped = data.clone().prop_map(|data| {
        Delivery { data: data.into(), ..Delivery::default() }.to_envelope(std::time::SystemTime::UNIX_EPOCH)
    });
    let invalid_envelope = (any::<String>(), any::<bool>()).prop_map(|(data, wrap)| {
        let message = json!({ "data": data });
        if wrap { json!({ "message": message }) } else { json!({ "message": data }) }.to_string().into_bytes()
    });
    let truncated = wrapped.clone().prop_flat_map(|body| {
        let length = body.len();
        (Just(body), 0..=length).prop_map(|(body, kept_length)| body[..kept_length].to_vec())
    });
    prop_oneof![noise(), data, wrapped, invalid_envelope, truncated]
}

async fn start_rig() -> Rig {
    let rig = Rig::with_espresso_engine().await;
    rig.store("good", encode_png()).await;
    rig.store("text", "hello").await;
    rig
}

#[test]
fn random_push_is_acknowledged_with_a_documented_outcome() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(start_rig());
    test_runner()
        .run(&bodies(), |body| {
            let (status, text) = runtime.block_on(async {
                let response = rig.push_raw(body).send().await.unwrap();
                (response.status(), response.text().await.unwrap())
            });
            prop_assert_eq!(status.as_u16(), 200, "{}", text);
            let body: serde_json::Value = serde_json::from_str(&text).unwrap();
            let is_documented = Outcome::ALL.into_iter().map(Outcome::handling).any(|handling| {
                handling.is_acknowledged()
                    && body["status"] == handling.label
                    && body["reason"].as_str().unwrap_or("") == handling.reason
            });
            prop_assert!(is_documented, "{}", body);
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_request_has_a_documented_status() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(start_rig());
    let content_types = prop_oneof![
        Just("application/json"),
        Just("image/jpeg"),
        Just("multipart/form-data; boundary=x"),
        Just("text/plain"),
        Just("")
    ];
    let jpeg = proptest::collection::vec(any::<u8>(), 0..300)
        .prop_map(|noise| [b"\xff\xd8\xff\xe0", &noise[..]].concat());
    let truncated_png = (0..encode_png().len()).prop_map(|length| encode_png()[..length].to_vec());
    test_runner()
        .run(&(content_types, prop_oneof![bodies(), jpeg, truncated_png]), |(content_type, body)| {
            let response = runtime
                .block_on(rig.post("/classify").header("content-type", content_type).body(body).send())
                .unwrap();
            prop_assert!(
                [200, 400, 404, 413, 415, 422].contains(&response.status().as_u16()),
                "{}",
                response.status()
            );
            Ok(())
        })
        .unwrap();
}
