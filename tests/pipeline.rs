//! A photo walks through the whole pipeline, over HTTP, and nothing stops it.

mod common;

use common::{sample, spawn_app, spawn_app_with};
use contract::PredictionRecord;
use reqwest::StatusCode;
use serde_json::json;

/// The photos that come with the repository, and what the models see in them. A rocket on its pad is no
/// class of ImageNet: MobileNetV2 sees a missile; EfficientNet-Lite0 (38 % missile in the crop of the
/// original) is tipped over by a JPEG of quality 95, and so it is in onnxruntime with Pillow's JPEG.
const SAMPLES: [(&str, &[&str]); 3] = [
    ("coffee.jpg", &["espresso"]),
    ("rocket.jpg", &["missile", "drilling platform"]),
    ("chelsea.jpg", &["tabby", "tiger cat", "Egyptian cat"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn sample_photos_get_their_true_labels() {
    let folder = tempfile::tempdir().unwrap();
    let app = spawn_app(folder.path()).await;
    for (name, labels) in SAMPLES {
        let id = app.client.must_upload(sample(name)).await;
        let label = app.client.label(&id).await;
        assert!(labels.contains(&label.as_str()), "{name} is said to be {label:?}");
    }
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_says_what_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let app = spawn_app(folder.path()).await;
    let (_, uploaded) = app.client.upload(sample("coffee.jpg")).await.unwrap();
    let id = uploaded["id"].as_str().unwrap();
    let PredictionRecord::Done(prediction) = app.client.prediction(id).await else {
        panic!("coffee.jpg failed")
    };

    let ready = app.client.http.get(format!("{}/ready", app.client.classify)).send().await.unwrap();
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(prediction.model, ready["model"].as_str().unwrap());
    assert_eq!(prediction.backend, ready["backend"].as_str().unwrap());
    assert_eq!(prediction.gcs_path.unwrap().to_string(), uploaded["gcs_path"].as_str().unwrap());
    assert_eq!(prediction.top[0].label, prediction.label);
    assert_eq!(prediction.top[0].wnid.as_deref(), Some("n07920052"));
    assert!(prediction.top.is_sorted_by(|a, b| a.confidence >= b.confidence));
    assert!((0.5..=1.0).contains(&prediction.confidence), "{}", prediction.confidence);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_upload_twice_is_one_image_and_one_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let app = spawn_app(folder.path()).await;
    let (_, first) = app.client.upload(sample("coffee.jpg")).await.unwrap();
    let id = first["id"].as_str().unwrap();
    let before = app.client.prediction(id).await;
    let (_, second) = app.client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!((first["duplicate"].as_bool(), second["duplicate"].as_bool()), (Some(false), Some(true)));
    assert_eq!(first["gcs_path"], second["gcs_path"]);
    assert_eq!(app.client.prediction(id).await, before);

    let event = json!({ "gcs_path": first["gcs_path"] }).to_string();
    let (status, answer) = app.client.push(event).await;
    assert_eq!((status, answer["status"].as_str()), (StatusCode::OK, Some("duplicate")), "{answer}");
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_messages_are_acknowledged_and_good_ones_pass_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let app = spawn_app(folder.path()).await;
    for poison in [
        "not json".to_owned(),
        json!({ "message": { "data": "***" } }).to_string(),
        json!({ "gcs_path": "gs://another-bucket/0/image.jpg" }).to_string(),
        json!({ "gcs_path": "gs://local/00000000000000000000000000000000/image.jpg" }).to_string(),
        json!({ "gcs_path": "gs://local/../../etc/passwd" }).to_string(),
    ] {
        let (status, answer) = app.client.push(poison.clone()).await;
        assert_eq!((status, answer["status"].as_str()), (StatusCode::OK, Some("dead")), "{poison}: {answer}");
    }
    let id = app.client.must_upload(sample("coffee.jpg")).await;
    assert_eq!(app.client.label(&id).await, "espresso");
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_can_never_be_classified_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let app = spawn_app(folder.path()).await;
    // What a broken or hostile publisher could leave in the bucket.
    let id = "0123456789abcdef0123456789abcdef";
    let image = folder.path().join("bucket").join(id);
    std::fs::create_dir_all(&image).unwrap();
    std::fs::write(image.join("image.jpg"), b"this is no image").unwrap();

    let event = json!({ "gcs_path": format!("gs://local/{id}/image.jpg") }).to_string();
    let (status, answer) = app.client.push(event).await;
    assert_eq!((status, answer["status"].as_str()), (StatusCode::OK, Some("dead")), "{answer}");
    let record = app.client.prediction(id).await;
    let PredictionRecord::Failed { error, .. } = record else { panic!("{record:?}") };
    assert_eq!(Some(error.reason.as_str()), answer["reason"].as_str());
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_loses_nothing_and_the_next_start_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    // One engine and one push at a time leave most of the uploads undelivered at the stop.
    let app = spawn_app_with(folder.path(), &["--classify-engines", "1"]).await;
    let mut ids = Vec::new();
    for n in 0..24_u8 {
        let mut photo = sample("chelsea.jpg");
        photo.push(n);
        ids.push(app.client.must_upload(photo).await);
    }
    app.stop().await.unwrap();

    let app = spawn_app(folder.path()).await;
    for id in &ids {
        let label = app.client.label(id).await;
        assert!(SAMPLES[2].1.contains(&label.as_str()), "{label}");
    }
    app.stop().await.unwrap();
}
