//! Tests of `GET /predictions/{id}` with pending, available and failed predictions, and of the wait for a
//! prediction.

use std::sync::{Arc, atomic::Ordering};

use contract::{EMBEDDING, ImageEvent, ImageId, PREDICTION};
use preprocess::Settings;

use crate::support::{TestApp, read_json, read_problem, read_sample};

/// A prediction, as classify stores it.
const DONE: &str = r#"{"gcs_path":"gs://test-bucket/x/image.jpg","label":"espresso","confidence":0.9}"#;

/// Starts a service and uploads a sample photo. Returns the service and the id of the photo.
async fn start_with_coffee(settings: Settings) -> (TestApp, ImageId) {
    let app = TestApp::start(settings).await;
    let (_, body) = read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await;
    let id = body["id"].as_str().unwrap().parse().unwrap();
    (app, id)
}

#[tokio::test]
async fn pending_prediction_gives_202_and_stored_prediction_is_returned_unchanged() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    let path = format!("/predictions/{id}");
    let pending = app.get(&path).await;
    assert_eq!(pending.headers()["retry-after"], "1");
    let (status, body) = read_json(pending).await;
    assert_eq!(
        (status.as_u16(), body),
        (202, serde_json::json!({ "id": id, "status": "pending", "ahead": 0 }))
    );
    let (_, second) = read_json(app.post("image/jpeg", read_sample("rocket.jpg")).await).await;
    let (_, body) =
        read_json(app.get(&format!("/predictions/{}", second["id"].as_str().unwrap())).await).await;
    assert_eq!(body["ahead"], 1);

    app.bucket.store(id.record_object_name(PREDICTION, None), DONE).await;
    let done = app.get(&path).await;
    assert_eq!(
        (done.status().as_u16(), &done.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert_eq!(done.text().await.unwrap(), DONE, "the response equals the stored object byte for byte");
}

#[tokio::test]
async fn stored_embedding_is_returned_unchanged() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    let embedding = r#"{"gcs_path":"gs://b/o","embedding":[0.5,-1.25],"model":"flowers","backend":"b"}"#;
    app.bucket.store(id.record_object_name(EMBEDDING, None), embedding).await;
    let response = app.get(&format!("/predictions/{id}?wait=30")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), embedding);
}

#[tokio::test]
async fn record_of_a_failure_is_returned_unchanged() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    let failed = r#"{"gcs_path":"gs://b/o","error":{"reason":"not_an_image","message":"…"}}"#;
    app.bucket.store(id.record_object_name(PREDICTION, None), failed).await;
    let response = app.get(&format!("/predictions/{id}?wait=30")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), failed);
}

#[tokio::test]
async fn damaged_prediction_is_pending_and_its_image_is_announced_once() {
    let name = |id: &ImageId| id.record_object_name(PREDICTION, None);
    type Damage<'a> = &'a dyn Fn(&TestApp, &ImageId);
    let damage: [(&str, Damage<'_>); 5] = [
        ("checked", &|app, id| app.bucket.damage(name(id))),
        ("cut", &|app, id| app.bucket.store_without_checksum(name(id), &DONE[..DONE.len() - 1])),
        ("zeroed", &|app, id| app.bucket.store_without_checksum(name(id), vec![0; DONE.len()])),
        ("empty", &|app, id| app.bucket.store_without_checksum(name(id), "")),
        ("other JSON", &|app, id| app.bucket.store_without_checksum(name(id), "{}")),
    ];
    for (kind, damage) in damage {
        let (app, id) = start_with_coffee(Settings::default()).await;
        app.bucket.store(name(&id), DONE).await;
        damage(&app, &id);
        for _ in 0..3 {
            let (status, body) = read_json(app.get(&format!("/predictions/{id}")).await).await;
            assert_eq!((status.as_u16(), &body["status"]), (202, &"pending".into()), "{kind}");
        }
        let published = app.topic.published();
        assert_eq!(published.len(), 2, "{kind}: one announcement is of the upload");
        let event: ImageEvent = serde_json::from_slice(&published[1].data).unwrap();
        assert_eq!(event.gcs_path.to_string(), format!("gs://test-bucket/{id}/image.jpg"));
        assert_eq!(event.id, Some(id));
    }
}

#[tokio::test]
async fn damaged_prediction_without_an_image_is_not_found_and_nothing_is_announced() {
    let (app, _) = start_with_coffee(Settings::default()).await;
    let id: ImageId = "0".repeat(32).parse().unwrap();
    app.bucket.store_without_checksum(id.record_object_name(PREDICTION, None), "");
    assert_eq!(read_problem(app.get(&format!("/predictions/{id}")).await).await.0, 404);
    assert_eq!(app.topic.published().len(), 1);
}

#[tokio::test]
async fn image_of_a_damaged_prediction_is_announced_by_the_next_request_if_the_topic_failed() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    app.bucket.store_without_checksum(id.record_object_name(PREDICTION, None), "");
    app.topic.broken.store(true, Ordering::SeqCst);
    let (status, body) = read_problem(app.get(&format!("/predictions/{id}")).await).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (503, "topic_unavailable"));
    app.topic.broken.store(false, Ordering::SeqCst);
    assert_eq!(app.get(&format!("/predictions/{id}")).await.status(), 202);
    assert_eq!(app.topic.published().len(), 2);
}

#[tokio::test]
async fn image_with_neither_a_prediction_nor_a_message_is_announced_once() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    let path = format!("/predictions/{id}");
    app.topic.clear();
    app.topic.broken.store(true, Ordering::SeqCst);
    let (status, body) = read_problem(app.get(&path).await).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (503, "topic_unavailable"));
    app.topic.broken.store(false, Ordering::SeqCst);
    assert_eq!(app.get(&path).await.status(), 202);
    let published = app.topic.published();
    assert_eq!(published.len(), 1);
    assert_eq!(preprocess::announced_image_id(&published[0]), Some(id));
    app.topic.clear();
    assert_eq!(app.get(&path).await.status(), 202);
    assert!(app.topic.published().is_empty(), "the image was announced a short time ago");
}

#[tokio::test]
async fn unknown_image_invalid_id_and_invalid_wait_are_refused() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    let unknown = "0".repeat(32);
    for (path, status, kind) in [
        (format!("/predictions/{unknown}"), 404, "no_such_image"),
        (format!("/predictions/{unknown}?wait=30"), 404, "no_such_image"),
        ("/predictions/coffee".to_owned(), 422, "bad_id"),
        ("/predictions/..%2Fsecret".to_owned(), 422, "bad_id"),
        (format!("/predictions/{id}?wait=soon"), 400, "bad_wait"),
        (format!("/predictions/{id}?wait=-1"), 400, "bad_wait"),
    ] {
        let (found, body) = read_problem(app.get(&path).await).await;
        assert_eq!((found, body["kind"].as_str().unwrap()), (status, kind), "{path}");
    }
    app.bucket.broken.store(true, Ordering::SeqCst);
    let (status, body) = read_problem(app.get(&format!("/predictions/{id}")).await).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (503, "bucket_unavailable"));
}

#[tokio::test]
async fn wait_ends_with_the_prediction_when_it_is_stored() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    let app = Arc::new(app);
    let waiting = tokio::spawn({
        let (app, path) = (Arc::clone(&app), format!("/predictions/{id}?wait=30"));
        async move { app.get(&path).await }
    });
    // The first read found no prediction. A later read must find the one that is stored now.
    app.bucket.was_read.notified().await;
    app.bucket.store(id.record_object_name(PREDICTION, None), DONE).await;
    assert_eq!(waiting.await.unwrap().text().await.unwrap(), DONE);
}

#[tokio::test]
async fn wait_ends_with_202_after_the_maximum_wait() {
    let max_wait = std::time::Duration::from_millis(120);
    let (app, id) =
        start_with_coffee(Settings { preprocess_max_wait: max_wait, ..Settings::default() }).await;
    // A wait above the maximum is shortened. Otherwise the request would time out with 504.
    assert_eq!(app.get(&format!("/predictions/{id}?wait=1e9")).await.status(), 202);
    assert_eq!(app.get(&format!("/predictions/{id}?wait=0.05")).await.status(), 202);
}

#[tokio::test]
async fn wait_ends_with_202_when_the_service_stops() {
    let (app, id) = start_with_coffee(Settings::default()).await;
    let app = Arc::new(app);
    let waiting = tokio::spawn({
        let (app, path) = (Arc::clone(&app), format!("/predictions/{id}?wait=30"));
        async move { app.get(&path).await.status() }
    });
    app.bucket.was_read.notified().await;
    app.stop.cancel();
    // The service answers at once. If it waited, the drain timeout would close the connection before the 30
    // seconds are over.
    assert_eq!(waiting.await.unwrap(), 202);
    Arc::into_inner(app).unwrap().wait_until_stopped().await;
}
