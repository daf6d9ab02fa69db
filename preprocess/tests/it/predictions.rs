//! `GET /predictions/{id}`: pending, done, failed, waiting.

use std::sync::{Arc, atomic::Ordering};

use contract::ImageId;
use preprocess::Settings;

use crate::support::{TestApp, json, problem, sample};

const DONE: &str = r#"{"gcs_path":"gs://test-bucket/x/image.jpg","label":"espresso","confidence":0.9}"#;

/// A service that has the sample photo, and the photo's id.
async fn with_coffee(settings: Settings) -> (TestApp, ImageId) {
    let app = TestApp::start(settings).await;
    let (_, body) = json(app.post("image/jpeg", sample("coffee.jpg")).await).await;
    let id = body["id"].as_str().unwrap().parse().unwrap();
    (app, id)
}

#[tokio::test]
async fn pending_then_done() {
    let (app, id) = with_coffee(Settings::default()).await;
    let path = format!("/predictions/{id}");
    let pending = app.get(&path).await;
    assert_eq!(pending.headers()["retry-after"], "1");
    let (status, body) = json(pending).await;
    assert_eq!((status.as_u16(), body), (202, serde_json::json!({ "id": id, "status": "pending" })));

    app.bucket.put(id.prediction_object(), DONE).await;
    let done = app.get(&path).await;
    assert_eq!(
        (done.status().as_u16(), &done.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert_eq!(done.text().await.unwrap(), DONE, "byte for byte");
}

#[tokio::test]
async fn a_failure_is_answered_as_it_is_stored() {
    let (app, id) = with_coffee(Settings::default()).await;
    let failed = r#"{"gcs_path":"gs://b/o","error":{"reason":"not_an_image","message":"…"}}"#;
    app.bucket.put(id.prediction_object(), failed).await;
    let answer = app.get(&format!("/predictions/{id}?wait=30")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), failed);
}

#[tokio::test]
async fn what_is_not_there_or_not_asked_well() {
    let (app, id) = with_coffee(Settings::default()).await;
    let unknown = "0".repeat(32);
    for (path, status, kind) in [
        (format!("/predictions/{unknown}"), 404, "no_such_image"),
        (format!("/predictions/{unknown}?wait=30"), 404, "no_such_image"),
        ("/predictions/coffee".to_owned(), 422, "bad_id"),
        ("/predictions/..%2Fsecret".to_owned(), 422, "bad_id"),
        (format!("/predictions/{id}?wait=soon"), 400, "bad_wait"),
        (format!("/predictions/{id}?wait=-1"), 400, "bad_wait"),
    ] {
        let (found, body) = problem(app.get(&path).await).await;
        assert_eq!((found, body["kind"].as_str().unwrap()), (status, kind), "{path}");
    }
    app.bucket.broken.store(true, Ordering::SeqCst);
    let (status, body) = problem(app.get(&format!("/predictions/{id}")).await).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (503, "bucket_unavailable"));
}

#[tokio::test]
async fn a_wait_ends_when_the_prediction_comes() {
    let (app, id) = with_coffee(Settings::default()).await;
    let app = Arc::new(app);
    let waiting = tokio::spawn({
        let (app, path) = (Arc::clone(&app), format!("/predictions/{id}?wait=30"));
        async move { app.get(&path).await }
    });
    // It has looked at least once, so it is not the first look that finds the prediction.
    app.bucket.was_read.notified().await;
    app.bucket.put(id.prediction_object(), DONE).await;
    assert_eq!(waiting.await.unwrap().text().await.unwrap(), DONE);
}

#[tokio::test]
async fn a_wait_ends_when_its_time_is_up() {
    let max_wait = std::time::Duration::from_millis(120);
    let (app, id) = with_coffee(Settings { max_wait, ..Settings::default() }).await;
    // Far longer than allowed: were it not cut, the request would time out instead (504).
    assert_eq!(app.get(&format!("/predictions/{id}?wait=1e9")).await.status(), 202);
    assert_eq!(app.get(&format!("/predictions/{id}?wait=0.05")).await.status(), 202);
}

#[tokio::test]
async fn a_wait_ends_when_the_service_stops() {
    let (app, id) = with_coffee(Settings::default()).await;
    let app = Arc::new(app);
    let waiting = tokio::spawn({
        let (app, path) = (Arc::clone(&app), format!("/predictions/{id}?wait=30"));
        async move { app.get(&path).await.status() }
    });
    app.bucket.was_read.notified().await;
    app.stop.cancel();
    // Were the wait not ended, the drain timeout would cut the connection before its 30 seconds.
    assert_eq!(waiting.await.unwrap(), 202);
    Arc::into_inner(app).unwrap().stopped().await;
}
