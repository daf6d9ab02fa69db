//! These tests run the services as they run on Google Cloud, with emulators of Cloud Storage and Pub/Sub.
//!
//! preprocess stores an upload in the bucket and announces it on a topic. Pub/Sub pushes the announcement to
//! classify, or classify pulls it. classify stores a prediction in the bucket and publishes a result. If
//! `.ci/emulators` has not installed the emulators, the tests print SKIPPED and pass.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a helper fails the test"
)]

#[path = "../common/mod.rs"]
mod common;
mod engines;
mod rig;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, routing::any};
use common::{TEST_TIMEOUT, read_sample};
use contract::{GcsPath, PredictionRecord};
use engines::{EspressoEngine, NanEngine, SlowEngine};
use platform::emulators::PushOptions;
use rig::{BUCKET, Cloud, client_of, free_port, numbered_photo, start_counting_proxy};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread")]
async fn upload_gets_one_prediction_and_one_published_result() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let classify = cloud.start_classify(0, &[]).await;
    let port: u16 = classify.url.rsplit(':').next().unwrap().parse().unwrap();
    cloud.create_push_subscription(port, &PushOptions::default()).await;
    let preprocess = cloud.start_preprocess(&["--prep-topic=preprocessed-images"]).await;
    let client = client_of(&preprocess, Some(&classify));

    let (status, uploaded) = client.upload(read_sample("coffee.jpg")).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{uploaded}");
    let id = uploaded["id"].as_str().unwrap();
    let path = format!("gs://{BUCKET}/{id}/image.jpg");
    assert_eq!(uploaded["gcs_path"], path);

    let PredictionRecord::Done(prediction) = client.await_prediction(id).await else {
        panic!("the prediction failed")
    };
    assert_eq!(prediction.label, "espresso");
    assert_eq!(prediction.gcs_path, Some(path.parse::<GcsPath>().unwrap()));

    cloud.await_results(1).await;
    let result = cloud.only_result_for(&path).clone();
    assert_eq!(result["label"], "espresso");
    assert_eq!(result["id"], id);
    assert_eq!(result["model"], prediction.model);
    assert!(result["predicted_at"].as_str().unwrap().ends_with('Z'), "{result}");
    let record = cloud.read_object(&format!("{id}/prediction.json")).await.unwrap();
    for member in ["gcs_path", "label", "confidence", "top", "model", "backend"] {
        assert_eq!(result[member], record[member], "{member}");
    }

    // Repeating the upload publishes no second result. The test then waits for the result of another photo,
    // which gives an unwanted second result time to arrive.
    let (_, repeated) = client.upload(read_sample("coffee.jpg")).await.unwrap();
    assert_eq!((&repeated["id"], &repeated["duplicate"]), (&uploaded["id"], &json!(true)));
    client.upload_and_get_id(read_sample("chelsea.jpg")).await;
    cloud.await_results(2).await;
    cloud.only_result_for(&path);
    preprocess.stop().await;
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn photo_copied_into_the_bucket_is_classified_once_per_version() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let engine = EspressoEngine::default();
    let classify = cloud.start_classify_with(port, engine.clone()).await;
    cloud.create_push_subscription(port, &PushOptions::default()).await;

    for version in 1..=2 {
        let upload =
            cloud.storage.upload(BUCKET, "in/my photo.jpg", "image/jpeg", numbered_photo(version).into());
        let metadata = upload.await.unwrap();
        let generation = metadata["generation"].as_str().unwrap();
        let attributes = json!({
            "eventType": "OBJECT_FINALIZE",
            "payloadFormat": "JSON_API_V1",
            "bucketId": BUCKET,
            "objectId": "in/my photo.jpg",
            "objectGeneration": generation,
        });
        let notification = metadata.to_string();
        let announcement = json!({ "gcs_path": "gs://images/in/my photo.jpg" }).to_string();
        // The photo is announced three times: by the bucket, by another publisher, and by the bucket again.
        for (data, attributes) in
            [(&notification, &attributes), (&announcement, &json!({})), (&notification, &attributes)]
        {
            cloud.pubsub.publish(&cloud.announcements_topic, data.as_bytes(), attributes).await.unwrap();
        }
        let prediction = cloud.await_object(&format!("in/my photo.jpg.{generation}.prediction.json")).await;
        assert_eq!(prediction["label"], "espresso");
        // The bucket also announces the prediction, and a text file. classify must ignore both announcements.
        for (name, content_type) in [
            (format!("in/my photo.jpg.{generation}.prediction.json"), "application/json"),
            (format!("in/{version}.txt"), "text/plain"),
        ] {
            let attributes = json!({
                "eventType": "OBJECT_FINALIZE",
                "bucketId": BUCKET,
                "objectId": name,
                "objectGeneration": "1",
            });
            let metadata = json!({ "bucket": BUCKET, "name": name, "contentType": content_type });
            cloud
                .pubsub
                .publish(&cloud.announcements_topic, metadata.to_string().as_bytes(), &attributes)
                .await
                .unwrap();
        }
    }
    // The test waits for the result of one more image, which gives the earlier announcements time to arrive.
    // They may still arrive later, because Pub/Sub does not guarantee the order. Therefore, the tests of the
    // crate classify check each kind of ignored announcement without Pub/Sub.
    let path = cloud.store_and_announce(&"0".repeat(32), &numbered_photo(9)).await;
    cloud.await_results(2).await;
    cloud.only_result_for(&path);
    let results = &cloud.results_by_path["gs://images/in/my photo.jpg"];
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!(engine.image_count(), 3, "two versions of the photo and the last image");
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn announcement_redelivered_during_a_slow_response_is_classified_once() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let engine = EspressoEngine::default();
    // A batch takes longer than the deadline for acknowledgements, so that Pub/Sub redelivers the
    // announcement before classify has responded.
    let classify = cloud.start_classify_with(port, SlowEngine(engine.clone(), Duration::from_secs(13))).await;
    let options = PushOptions { ack_deadline_seconds: 10, ..PushOptions::default() };
    let (proxy_port, push_count) = start_counting_proxy(port).await;
    cloud.create_push_subscription(proxy_port, &options).await;
    let id = "0".repeat(32);
    let path = cloud.store_and_announce(&id, &read_sample("coffee.jpg")).await;
    cloud.await_object(&format!("{id}/prediction.json")).await;
    assert!(push_count.load(Ordering::SeqCst) >= 2, "the announcement was not redelivered");
    cloud.await_results(1).await;
    assert_eq!(cloud.only_result_for(&path)["label"], "espresso");
    assert_eq!(engine.image_count(), 1, "the redelivered announcement was classified again");
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_get_predictions_although_classify_was_down_refused_pushes_or_restarted() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    cloud.create_push_subscription(port, &PushOptions::default()).await;
    let preprocess = cloud.start_preprocess(&["--prep-topic=projects/test/topics/preprocessed-images"]).await;
    let client = client_of(&preprocess, None);
    let mut ids = Vec::new();

    // Nothing listens on the port of classify.
    for number in 0..3 {
        ids.push(client.upload_and_get_id(numbered_photo(number)).await);
    }
    // This server refuses every push, as classify does before it is ready.
    let push_refused = Arc::new(Notify::new());
    let refuse_push = any({
        let push_refused = Arc::clone(&push_refused);
        move || {
            push_refused.notify_one();
            async { StatusCode::SERVICE_UNAVAILABLE }
        }
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let app = Router::new().fallback(refuse_push);
    let refusing_server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    for number in 3..6 {
        ids.push(client.upload_and_get_id(numbered_photo(number)).await);
    }
    for _ in 0..3 {
        tokio::time::timeout(TEST_TIMEOUT, push_refused.notified()).await.expect("Pub/Sub pushes again");
    }
    refusing_server.abort();
    let _ = refusing_server.await;

    // classify runs twice. Each time, it stops before it has classified all uploads.
    for run in 0..2_u8 {
        let slow = SlowEngine(EspressoEngine::default(), Duration::from_millis(200));
        let classify = cloud.start_classify_with(port, slow).await;
        for number in 0..5 {
            ids.push(client.upload_and_get_id(numbered_photo(10 + 10 * run + number)).await);
        }
        cloud.await_results(usize::from(run) * 5 + 2).await;
        classify.stop().await;
    }
    let classify = cloud.start_classify_with(port, EspressoEngine::default()).await;
    for id in &ids {
        assert_eq!(client.await_label(id).await, "espresso");
    }
    cloud.await_results(ids.len()).await;
    classify.stop().await;
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_failure_is_recorded_and_model_failure_becomes_a_dead_letter() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let dead_letter_topic = cloud.pubsub.create_topic("unclassified-images").await.unwrap();
    let dead_letter_subscription =
        cloud.pubsub.create_pull_subscription("unclassified-images-pull", &dead_letter_topic).await.unwrap();
    let options = PushOptions { dead_letter_topic: Some(dead_letter_topic), ..PushOptions::default() };
    cloud.create_push_subscription(port, &options).await;
    let classify = cloud.start_classify_with(port, NanEngine).await;

    // The first announced object is not an image. classify records and publishes the failure.
    let id = "1".repeat(32);
    let path = cloud.store_and_announce(&id, b"hello").await;
    let record = cloud.await_object(&format!("{id}/prediction.json")).await;
    assert_eq!(record["error"]["reason"], "not_an_image");
    cloud.await_results(1).await;
    assert_eq!(cloud.only_result_for(&path)["error"]["reason"], "not_an_image");
    // The second message is not an announcement. classify must acknowledge it, because a refused message
    // would become a dead letter before the third message does.
    cloud.pubsub.publish(&cloud.announcements_topic, b"\xff\xfe", &json!({ "a": "b" })).await.unwrap();

    // The third message announces an image, for which the engine returns invalid logits. classify refuses the
    // message until it becomes a dead letter.
    let id = "2".repeat(32);
    let path = cloud.store_and_announce(&id, &read_sample("coffee.jpg")).await;
    let begin = Instant::now();
    let letters = loop {
        let letters = cloud.pubsub.pull(&dead_letter_subscription).await.unwrap();
        if !letters.is_empty() {
            break letters;
        }
        assert!(begin.elapsed() < TEST_TIMEOUT, "no dead letter");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    let announcement: Value = serde_json::from_slice(&letter.data).unwrap();
    assert_eq!(announcement["gcs_path"], path);
    assert_eq!(cloud.read_object(&format!("{id}/prediction.json")).await, None);
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_upload_is_announced_if_the_first_announcement_failed() {
    let Some(mut cloud) = Cloud::start().await else { return };
    // The topic `later` does not exist yet. preprocess stores the image, but cannot announce it.
    let preprocess = cloud.start_preprocess(&["--prep-topic=later", "--cloud-timeout=5"]).await;
    let client = client_of(&preprocess, None);
    let (status, body) = client.upload(read_sample("coffee.jpg")).await.unwrap();
    assert_eq!(
        (status, &body["kind"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("topic_unavailable")),
        "{body}"
    );

    cloud.announcements_topic = cloud.pubsub.create_topic("later").await.unwrap();
    let port = free_port();
    let classify = cloud.start_classify_with(port, EspressoEngine::default()).await;
    cloud.create_push_subscription(port, &PushOptions::default()).await;
    let (status, body) = client.upload(read_sample("coffee.jpg")).await.unwrap();
    assert_eq!((status, &body["duplicate"]), (StatusCode::OK, &json!(true)), "{body}");
    assert_eq!(client.await_label(body["id"].as_str().unwrap()).await, "espresso");
    cloud.await_results(1).await;
    classify.stop().await;
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_get_predictions_although_a_pulling_classify_was_restarted() {
    let Some(mut cloud) = Cloud::start().await else { return };
    cloud.pubsub.create_pull_subscription("classify-pull", &cloud.announcements_topic).await.unwrap();
    let preprocess = cloud.start_preprocess(&["--prep-topic=preprocessed-images"]).await;
    let client = client_of(&preprocess, None);
    let pull_flags = ["--mode=pull", "--prep-subscription=classify-pull"];
    let mut ids = Vec::new();
    let classify = cloud.start_classify(0, &pull_flags).await;
    for number in 0..8 {
        ids.push(client.upload_and_get_id(numbered_photo(number)).await);
    }
    cloud.await_results(2).await;
    // classify stops while deliveries are in progress. The test restarts classify only once, because each
    // restart makes the test slow: the emulator continues to send every second message to the closed stream,
    // and redelivers such a message only after the lease of the message has expired.
    classify.stop().await;
    for number in 8..12 {
        ids.push(client.upload_and_get_id(numbered_photo(number)).await);
    }
    let classify = cloud.start_classify(0, &pull_flags).await;
    for id in &ids {
        assert_eq!(client.await_label(id).await, "espresso");
    }
    cloud.await_results(ids.len()).await;
    let ready = reqwest::get(format!("{}/ready", classify.url)).await.unwrap();
    let ready: Value = ready.json().await.unwrap();
    assert_eq!(ready["subscription"], "projects/test/subscriptions/classify-pull");
    classify.stop().await;
    // The subscription is empty, because all messages are acknowledged.
    assert_eq!(cloud.pubsub.pull("projects/test/subscriptions/classify-pull").await.unwrap(), []);
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_subscription_stops_classify_with_an_error_that_names_the_subscription() {
    let Some(cloud) = Cloud::start().await else { return };
    let classify = cloud.start_classify(0, &["--mode=pull", "--prep-subscription=nowhere"]).await;
    let result = tokio::time::timeout(TEST_TIMEOUT, classify.task).await.expect("classify stops").unwrap();
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("projects/test/subscriptions/nowhere"), "{error}");
}
