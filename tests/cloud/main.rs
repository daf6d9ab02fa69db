//! The pipeline as it runs on Google Cloud, on the emulators of Cloud Storage and Pub/Sub: each service
//! on its own, upload → bucket → topic → push or pull → prediction and result. Where `.ci/emulators`
//! has not put the emulators, the tests say SKIPPED and pass.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper that fails fails the test"
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
use common::{PATIENCE, sample};
use contract::{GcsPath, PredictionRecord};
use engines::{Broken, Espresso, Slow};
use platform::emulators::PushOptions;
use rig::{BUCKET, Cloud, client, counting_proxy, free_port, photo};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread")]
async fn from_upload_to_prediction_and_result() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let classify = cloud.classify(0, &[]).await;
    let port: u16 = classify.url.rsplit(':').next().unwrap().parse().unwrap();
    cloud.push_to(port, &PushOptions::default()).await;
    let preprocess = cloud.preprocess(&["--prep-topic=preprocessed-images"]).await;
    let client = client(&preprocess, Some(&classify));

    let (status, uploaded) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{uploaded}");
    let id = uploaded["id"].as_str().unwrap();
    let path = format!("gs://{BUCKET}/{id}/image.jpg");
    assert_eq!(uploaded["gcs_path"], path);

    let PredictionRecord::Done(prediction) = client.prediction(id).await else { panic!("it failed") };
    assert_eq!(prediction.label, "espresso");
    assert_eq!(prediction.gcs_path, Some(path.parse::<GcsPath>().unwrap()));

    cloud.results_of(1).await;
    let result = cloud.result(&path).clone();
    assert_eq!(result["label"], "espresso");
    assert_eq!(result["id"], id);
    assert_eq!(result["model"], prediction.model);
    assert!(result["predicted_at"].as_str().unwrap().ends_with('Z'), "{result}");
    let record = cloud.object(&format!("{id}/prediction.json")).await.unwrap();
    for member in ["gcs_path", "label", "confidence", "top", "model", "backend"] {
        assert_eq!(result[member], record[member], "{member}");
    }

    // Once more: it is known, and nothing is told again.
    let (_, again) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!((&again["id"], &again["duplicate"]), (&uploaded["id"], &json!(true)));
    client.must_upload(sample("chelsea.jpg")).await;
    cloud.results_of(2).await;
    cloud.result(&path);
    preprocess.stop().await;
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_copied_into_the_bucket_is_classified_once_a_version() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let engine = Espresso::default();
    let classify = cloud.classify_with(port, engine.clone()).await;
    cloud.push_to(port, &PushOptions::default()).await;

    for version in 1..=2 {
        let resource = cloud.storage.upload(BUCKET, "in/my photo.jpg", "image/jpeg", photo(version).into());
        let resource = resource.await.unwrap();
        let generation = resource["generation"].as_str().unwrap();
        let attributes = json!({
            "eventType": "OBJECT_FINALIZE",
            "payloadFormat": "JSON_API_V1",
            "bucketId": BUCKET,
            "objectId": "in/my photo.jpg",
            "objectGeneration": generation,
        });
        let notification = resource.to_string();
        let message = json!({ "gcs_path": "gs://images/in/my photo.jpg" }).to_string();
        // The bucket says it, twice, and somebody else says it, too.
        for (data, attributes) in
            [(&notification, &attributes), (&message, &json!({})), (&notification, &attributes)]
        {
            cloud.pubsub.publish(&cloud.images, data.as_bytes(), attributes).await.unwrap();
        }
        let prediction = cloud.await_object(&format!("in/my photo.jpg.{generation}.prediction.json")).await;
        assert_eq!(prediction["label"], "espresso");
        // The prediction is an object as well, and announced; a text is, too.
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
            let resource = json!({ "bucket": BUCKET, "name": name, "contentType": content_type });
            cloud.pubsub.publish(&cloud.images, resource.to_string().as_bytes(), &attributes).await.unwrap();
        }
    }
    // Announced last, so that the others have had their time; deliveries have no order, and classify's
    // own tests hold each of the ignored ones by itself.
    let path = cloud.announce(&"0".repeat(32), &photo(9)).await;
    cloud.results_of(2).await;
    cloud.result(&path);
    let results = &cloud.seen["gs://images/in/my photo.jpg"];
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!(engine.asked(), 3, "two versions and the last one");
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_slower_than_the_ack_deadline_makes_no_second_prediction() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let engine = Espresso::default();
    let classify = cloud.classify_with(port, Slow(engine.clone(), Duration::from_secs(13))).await;
    let options = PushOptions { ack_deadline_seconds: 10, ..PushOptions::default() };
    let (between, pushes) = counting_proxy(port).await;
    cloud.push_to(between, &options).await;
    let id = "0".repeat(32);
    let path = cloud.announce(&id, &sample("coffee.jpg")).await;
    cloud.await_object(&format!("{id}/prediction.json")).await;
    assert!(pushes.load(Ordering::SeqCst) >= 2, "it was not delivered again in the meantime");
    cloud.results_of(1).await;
    assert_eq!(cloud.result(&path)["label"], "espresso");
    assert_eq!(engine.asked(), 1, "delivered again while the first was under way");
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_classify_is_down_refuses_or_is_restarted() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    cloud.push_to(port, &PushOptions::default()).await;
    let preprocess = cloud.preprocess(&["--prep-topic=projects/test/topics/preprocessed-images"]).await;
    let client = client(&preprocess, None);
    let mut ids = Vec::new();

    // Nobody listens.
    for number in 0..3 {
        ids.push(client.must_upload(photo(number)).await);
    }
    // Somebody listens, and is not ready.
    let refused = Arc::new(Notify::new());
    let refusing = any({
        let refused = Arc::clone(&refused);
        move || {
            refused.notify_one();
            async { StatusCode::SERVICE_UNAVAILABLE }
        }
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let app = Router::new().fallback(refusing);
    let not_ready = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    for number in 3..6 {
        ids.push(client.must_upload(photo(number)).await);
    }
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, refused.notified()).await.expect("it is tried again and again");
    }
    not_ready.abort();
    let _ = not_ready.await;

    // Two lives, with uploads before, during and after.
    for life in 0..2_u8 {
        let slow = Slow(Espresso::default(), Duration::from_millis(200));
        let classify = cloud.classify_with(port, slow).await;
        for number in 0..5 {
            ids.push(client.must_upload(photo(10 + 10 * life + number)).await);
        }
        cloud.results_of(usize::from(life) * 5 + 2).await;
        classify.stop().await;
    }
    let classify = cloud.classify_with(port, Espresso::default()).await;
    for id in &ids {
        assert_eq!(client.label(id).await, "espresso");
    }
    cloud.results_of(ids.len()).await;
    classify.stop().await;
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_recorded_or_becomes_a_dead_letter() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let dead = cloud.pubsub.create_topic("unclassified-images").await.unwrap();
    let dead_pull = cloud.pubsub.create_pull_subscription("unclassified-images-pull", &dead).await.unwrap();
    let options = PushOptions { dead_letter_topic: Some(dead), ..PushOptions::default() };
    cloud.push_to(port, &options).await;
    let classify = cloud.classify_with(port, Broken).await;

    // No image: on record and on the results topic, so that nobody waits in vain.
    let id = "1".repeat(32);
    let path = cloud.announce(&id, b"hello").await;
    let record = cloud.await_object(&format!("{id}/prediction.json")).await;
    assert_eq!(record["error"]["reason"], "not_an_image");
    cloud.results_of(1).await;
    assert_eq!(cloud.result(&path)["error"]["reason"], "not_an_image");
    // No event at all: acknowledged, or it would be the first dead letter.
    cloud.pubsub.publish(&cloud.images, b"\xff\xfe", &json!({ "a": "b" })).await.unwrap();

    // An image that the model has no answer for: refused, until it is a dead letter.
    let id = "2".repeat(32);
    let path = cloud.announce(&id, &sample("coffee.jpg")).await;
    let begin = Instant::now();
    let letters = loop {
        let letters = cloud.pubsub.pull(&dead_pull).await.unwrap();
        if !letters.is_empty() {
            break letters;
        }
        assert!(begin.elapsed() < PATIENCE, "no dead letter");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    let event: Value = serde_json::from_slice(&letter.data).unwrap();
    assert_eq!(event["gcs_path"], path);
    assert_eq!(cloud.object(&format!("{id}/prediction.json")).await, None);
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_be_announced_is_completed_by_sending_it_again() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let preprocess = cloud.preprocess(&["--prep-topic=later", "--cloud-timeout=5"]).await;
    let client = client(&preprocess, None);
    let (status, body) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!(
        (status, &body["kind"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("topic_unavailable")),
        "{body}"
    );

    let topic = cloud.pubsub.create_topic("later").await.unwrap();
    cloud.images = topic;
    let port = free_port();
    let classify = cloud.classify_with(port, Espresso::default()).await;
    cloud.push_to(port, &PushOptions::default()).await;
    let (status, body) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!((status, &body["duplicate"]), (StatusCode::OK, &json!(true)), "{body}");
    assert_eq!(client.label(body["id"].as_str().unwrap()).await, "espresso");
    cloud.results_of(1).await;
    classify.stop().await;
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classify_pulls_and_loses_nothing_to_a_restart() {
    let Some(mut cloud) = Cloud::start().await else { return };
    cloud.pubsub.create_pull_subscription("classify-pull", &cloud.images).await.unwrap();
    let preprocess = cloud.preprocess(&["--prep-topic=preprocessed-images"]).await;
    let client = client(&preprocess, None);
    let pull = ["--mode=pull", "--prep-subscription=classify-pull"];
    let mut ids = Vec::new();
    let classify = cloud.classify(0, &pull).await;
    for number in 0..8 {
        ids.push(client.must_upload(photo(number)).await);
    }
    cloud.results_of(2).await;
    // With some of the rest under way. Restarted only once: the emulator goes on sending messages to a
    // stream that was closed, by turns with the one that is open, and each comes back only after its lease.
    classify.stop().await;
    for number in 8..12 {
        ids.push(client.must_upload(photo(number)).await);
    }
    let classify = cloud.classify(0, &pull).await;
    for id in &ids {
        assert_eq!(client.label(id).await, "espresso");
    }
    cloud.results_of(ids.len()).await;
    let ready = reqwest::get(format!("{}/ready", classify.url)).await.unwrap();
    let ready: Value = ready.json().await.unwrap();
    assert_eq!(ready["subscription"], "projects/test/subscriptions/classify-pull");
    classify.stop().await;
    // Acknowledged, all of them: nothing is left to be delivered.
    assert_eq!(cloud.pubsub.pull("projects/test/subscriptions/classify-pull").await.unwrap(), []);
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_there_stops_classify_with_its_name() {
    let Some(cloud) = Cloud::start().await else { return };
    let classify = cloud.classify(0, &["--mode=pull", "--prep-subscription=nowhere"]).await;
    let ended = tokio::time::timeout(PATIENCE, classify.task).await.expect("it ends").unwrap();
    let error = format!("{:#}", ended.unwrap_err());
    assert!(error.contains("projects/test/subscriptions/nowhere"), "{error}");
}
