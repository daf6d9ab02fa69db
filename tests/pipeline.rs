//! These tests send photos through the whole pipeline over HTTP.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a panic in a helper fails the test")]

mod common;

use std::path::Path;

use common::{build_pipeline, read_sample, start_pipeline, start_pipeline_with};
use contract::PredictionRecord;
use reqwest::StatusCode;
use serde_json::json;

/// The sample photos with the labels that the models may give them.
///
/// ImageNet has no class for a rocket on its pad. MobileNetV2 predicts a missile. For the original photo,
/// EfficientNet-Lite0 also predicts a missile, with only 38 % confidence. For the JPEG of quality 95 that
/// preprocess stores, EfficientNet-Lite0 predicts a drilling platform.
///
/// The drilling platform is allowed, because onnxruntime also predicts it for a JPEG that Pillow encoded. So
/// this label is a weakness of the model, not a defect of this pipeline.
const SAMPLES: [(&str, &[&str]); 3] = [
    ("coffee.jpg", &["espresso"]),
    ("rocket.jpg", &["missile", "drilling platform"]),
    ("chelsea.jpg", CHELSEA_LABELS),
];

/// The labels that the models may give to `chelsea.jpg`, a photo of a cat.
const CHELSEA_LABELS: &[&str] = &["tabby", "tiger cat", "Egyptian cat"];

#[tokio::test(flavor = "multi_thread")]
async fn uploaded_sample_photos_get_their_labels() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    for (name, labels) in SAMPLES {
        let id = pipeline.client.upload_and_get_id(read_sample(name)).await;
        let label = pipeline.client.await_label(&id).await;
        assert!(labels.contains(&label.as_str()), "{name} got the label {label:?}");
    }
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prediction_names_the_model_and_backend_that_ready_reports() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    let (_, uploaded) = pipeline.client.upload(read_sample("coffee.jpg")).await.unwrap();
    let id = uploaded["id"].as_str().unwrap();
    let PredictionRecord::Done(prediction) = pipeline.client.await_prediction(id).await else {
        panic!("coffee.jpg got no prediction")
    };

    let ready =
        pipeline.client.http.get(format!("{}/ready", pipeline.client.classify_url)).send().await.unwrap();
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(prediction.model, ready["model"].as_str().unwrap());
    assert_eq!(prediction.backend, ready["backend"].as_str().unwrap());
    assert_eq!(prediction.gcs_path.unwrap().to_string(), uploaded["gcs_path"].as_str().unwrap());
    assert_eq!(prediction.top[0].label, prediction.label);
    assert_eq!(prediction.top[0].wnid.as_deref(), Some("n07920052"));
    assert!(prediction.top.is_sorted_by(|a, b| a.confidence >= b.confidence));
    assert!((0.5..=1.0).contains(&prediction.confidence), "{}", prediction.confidence);
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_may_read_the_data_folder() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let pipeline = start_pipeline(&data_dir).await;
    let id = pipeline.client.upload_and_get_id(read_sample("coffee.jpg")).await;
    pipeline.client.await_label(&id).await;
    let mut unvisited = vec![data_dir];
    let mut names = Vec::new();
    while let Some(path) = unvisited.pop() {
        let metadata = std::fs::metadata(&path).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
        if metadata.is_dir() {
            unvisited.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in ["topic.sqlite", "topic.sqlite-wal", "image.jpg", "prediction.json", ".tmp"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_upload_is_a_duplicate_with_the_same_path_and_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    let (_, first) = pipeline.client.upload(read_sample("coffee.jpg")).await.unwrap();
    let id = first["id"].as_str().unwrap();
    let first_prediction = pipeline.client.await_prediction(id).await;
    let (_, second) = pipeline.client.upload(read_sample("coffee.jpg")).await.unwrap();
    assert_eq!((first["duplicate"].as_bool(), second["duplicate"].as_bool()), (Some(false), Some(true)));
    assert_eq!(first["gcs_path"], second["gcs_path"]);
    assert_eq!(pipeline.client.await_prediction(id).await, first_prediction);

    let event = json!({ "gcs_path": first["gcs_path"] }).to_string();
    let (status, body) = pipeline.client.push_event(event).await;
    assert_eq!((status, body["status"].as_str()), (StatusCode::OK, Some("duplicate")), "{body}");
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_can_never_succeed_are_acknowledged_as_dead_and_later_uploads_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    for event in [
        "not json".to_owned(),
        json!({ "message": { "data": "***" } }).to_string(),
        json!({ "gcs_path": "gs://another-bucket/0/image.jpg" }).to_string(),
        json!({ "gcs_path": "gs://local/00000000000000000000000000000000/image.jpg" }).to_string(),
        json!({ "gcs_path": "gs://local/../../etc/passwd" }).to_string(),
    ] {
        let (status, body) = pipeline.client.push_event(event.clone()).await;
        assert_eq!((status, body["status"].as_str()), (StatusCode::OK, Some("dead")), "{event}: {body}");
    }
    let id = pipeline.client.upload_and_get_id(read_sample("coffee.jpg")).await;
    assert_eq!(pipeline.client.await_label(&id).await, "espresso");
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_file_that_is_not_an_image_gets_a_prediction_record_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    // The test writes a file into the bucket, as another program with access to the bucket could do.
    let id = "0123456789abcdef0123456789abcdef";
    let image_folder = folder.path().join("bucket").join(id);
    std::fs::create_dir_all(&image_folder).unwrap();
    std::fs::write(image_folder.join("image.jpg"), b"this is no image").unwrap();

    let event = json!({ "gcs_path": format!("gs://local/{id}/image.jpg") }).to_string();
    let (status, body) = pipeline.client.push_event(event).await;
    assert_eq!((status, body["status"].as_str()), (StatusCode::OK, Some("dead")), "{body}");
    let record = pipeline.client.await_prediction(id).await;
    let PredictionRecord::Failed { error, .. } = record else { panic!("{record:?}") };
    assert_eq!(Some(error.reason.as_str()), body["reason"].as_str());
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_undelivered_at_shutdown_are_classified_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    // With a single engine, classify is slower than preprocess, so that most of the uploads are still
    // undelivered when the pipeline stops.
    let pipeline = start_pipeline_with(folder.path(), &["--classify-engines", "1"]).await;
    let mut ids = Vec::new();
    for number in 0..24_u8 {
        let mut photo = read_sample("chelsea.jpg");
        // The decoder ignores this byte, but the id of the upload depends on it. Without the byte, all
        // uploads would have the same id.
        photo.push(number);
        ids.push(pipeline.client.upload_and_get_id(photo).await);
    }
    pipeline.stop().await.unwrap();

    let pipeline = start_pipeline(folder.path()).await;
    for id in &ids {
        let label = pipeline.client.await_label(id).await;
        assert!(CHELSEA_LABELS.contains(&label.as_str()), "{label}");
    }
    pipeline.stop().await.unwrap();
}

/// Ids of the images in `tests/data/26b0de0`, which are uploads of sample photos.
const COFFEE_ID: &str = "cc5251a82edce667064f194edb215791";
const ROCKET_ID: &str = "1495a22e9480a2f734824cab048b42aa";
const CHELSEA_ID: &str = "f88c176981145731f15ea19f943389ab";

/// Copies the data folder of version 26b0de0 to `target`.
///
/// The prediction of the coffee is stored. The announcement of the rocket is waiting, and that of the cat is a
/// dead letter, because classify was not available.
fn copy_data_of_26b0de0(target: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/26b0de0");
    copy_folder(&source, target);
}

fn copy_folder(source: &Path, target: &Path) {
    std::fs::create_dir_all(target).unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let target = target.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn remove_topic(data_dir: &Path) {
    std::fs::remove_file(data_dir.join("topic.sqlite")).unwrap();
    for companion in ["topic.sqlite-wal", "topic.sqlite-shm"] {
        // The files exist only while the topic is open.
        let _ = std::fs::remove_file(data_dir.join(companion));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_dead_and_finished_images_of_an_earlier_version_are_finished() {
    let folder = tempfile::tempdir().unwrap();
    copy_data_of_26b0de0(folder.path());
    let finished =
        std::fs::read(folder.path().join("bucket").join(COFFEE_ID).join("prediction.json")).unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    // The prediction is of this model, and has no checksum.
    let url = format!("{}/predictions/{COFFEE_ID}?model=efficientnet-lite0", pipeline.client.preprocess_url);
    let served = pipeline.client.http.get(url).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(served, finished, "the finished prediction is served unchanged");
    let label = pipeline.client.await_label(CHELSEA_ID).await;
    assert!(CHELSEA_LABELS.contains(&label.as_str()), "{label}");
    let label = pipeline.client.await_label(ROCKET_ID).await;
    assert!(SAMPLES[1].1.contains(&label.as_str()), "{label}");
    // The recipe has changed since, so the same photos become other images.
    for (name, old_id) in [("coffee.jpg", COFFEE_ID), ("rocket.jpg", ROCKET_ID), ("chelsea.jpg", CHELSEA_ID)]
    {
        let (status, body) = pipeline.client.upload(read_sample(name)).await.unwrap();
        assert_eq!((status, body["duplicate"].as_bool()), (StatusCode::OK, Some(false)));
        let id = body["id"].as_str().unwrap();
        assert_ne!(id, old_id);
        pipeline.client.await_label(id).await;
    }
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn image_of_a_former_model_is_classified_again_when_its_prediction_is_requested() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    let id = pipeline.client.upload_and_get_id(read_sample("coffee.jpg")).await;
    pipeline.client.await_label(&id).await;
    pipeline.stop().await.unwrap();
    let first_record = folder.path().join("bucket").join(&id).join("prediction.json");
    let key = classify::model::compiled_model().key();
    let of_former_model =
        std::fs::read_to_string(&first_record).unwrap().replace(classify::model::spec::NAME, "former");
    // A new file has no checksum, as if it had been copied.
    std::fs::remove_file(&first_record).unwrap();
    std::fs::write(&first_record, &of_former_model).unwrap();

    let pipeline = start_pipeline(folder.path()).await;
    pipeline.client.await_label(&id).await;
    let served = async |query: &str| {
        let url = format!("{}/predictions/{id}{query}", pipeline.client.preprocess_url);
        pipeline.client.http.get(url).send().await.unwrap().text().await.unwrap()
    };
    let new_record = std::fs::read_to_string(first_record.with_file_name(format!("prediction.{key}.json")));
    assert_eq!(served("").await, new_record.unwrap());
    assert_eq!(served("?model=former").await, of_former_model);
    assert_eq!(std::fs::read_to_string(&first_record).unwrap(), of_former_model);
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_a_lost_topic_are_classified_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    copy_data_of_26b0de0(folder.path());
    remove_topic(folder.path());
    let pipeline = start_pipeline(folder.path()).await;
    for id in [COFFEE_ID, ROCKET_ID, CHELSEA_ID] {
        pipeline.client.await_label(id).await;
    }
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_before_and_after_the_topic_is_removed_are_classified() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline_with(folder.path(), &["--classify-engines", "1"]).await;
    let mut ids = Vec::new();
    for number in 0..16_u8 {
        if number == 8 {
            remove_topic(folder.path());
        }
        let mut photo = read_sample("chelsea.jpg");
        photo.push(number);
        ids.push(pipeline.client.upload_and_get_id(photo).await);
    }
    for id in &ids {
        pipeline.client.await_label(id).await;
    }
    let ready = format!("{}/ready", pipeline.client.preprocess_url);
    assert_eq!(pipeline.client.http.get(ready).send().await.unwrap().status(), StatusCode::OK);
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn second_pipeline_in_the_same_data_folder_is_refused_with_the_process_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(folder.path()).await;
    let error = build_pipeline(folder.path(), &[]).await.err().unwrap().to_string();
    assert!(error.contains(&format!("in use by the process {}", std::process::id())), "{error}");
    pipeline.stop().await.unwrap();
    start_pipeline(folder.path()).await.stop().await.unwrap();
}
