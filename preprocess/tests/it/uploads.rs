//! Tests of `POST /preprocess`: the response, the stored image and the announcement.

use std::sync::{Arc, atomic::Ordering};

use contract::{ImageEvent, ImageId, MAX_PREDICTION_BYTES, PREDICTION};
use preprocess::Settings;

use crate::support::{TestApp, file_form, read_json, read_problem, read_sample, without_avif};

#[tokio::test]
async fn photo_is_stored_and_announced() {
    let app = TestApp::start(Settings::default()).await;
    let (status, body) =
        read_json(app.post_form(file_form([("coffee.jpg", read_sample("coffee.jpg"))])).await).await;
    assert_eq!(status, 200);
    // The id is part of the names of existing objects. A new version of preprocess must not change the id,
    // unless the recipe changes.
    insta::assert_json_snapshot!(body, @r#"
{
  "duplicate": false,
  "gcs_path": "gs://test-bucket/de0844c68df01e09f3253c18b7d751b5/image.jpg",
  "height": 256,
  "id": "de0844c68df01e09f3253c18b7d751b5",
  "width": 384
}
"#);

    let id: ImageId = body["id"].as_str().unwrap().parse().unwrap();
    let stored = image::load_from_memory(&app.bucket.read_image(&id).await).unwrap();
    assert_eq!(
        (body["width"].as_u64(), body["height"].as_u64()),
        (Some(stored.width().into()), Some(stored.height().into()))
    );

    let published = app.topic.published();
    assert_eq!(published.len(), 1);
    let event: ImageEvent = serde_json::from_slice(&published[0].data).unwrap();
    assert_eq!(event.gcs_path.to_string(), body["gcs_path"].as_str().unwrap());
    assert_eq!(
        (event.id, event.width, event.height),
        (Some(id), Some(stored.width()), Some(stored.height()))
    );
    assert_eq!(published[0].attributes["content-type"], "image/jpeg");
    assert_eq!(published[0].attributes["traceparent"].len(), 55);
}

#[tokio::test]
async fn form_and_raw_body_with_the_same_file_have_the_same_id() {
    let app = TestApp::start(Settings::default()).await;
    let rocket = read_sample("rocket.jpg");
    let (_, first) = read_json(app.post("application/octet-stream", rocket.clone()).await).await;
    let form = file_form([("rocket.jpg", rocket.clone())]).text("caption", "ignored");
    let (_, second) = read_json(app.post_form(form).await).await;
    let (_, third) = read_json(app.post("image/jpeg", rocket).await).await;
    assert_eq!(first["id"], second["id"]);
    assert_eq!(first["id"], third["id"]);
    assert_eq!([&first["duplicate"], &second["duplicate"], &third["duplicate"]], [false, true, true]);
}

#[tokio::test]
async fn several_files_are_listed_in_the_order_of_the_form() {
    let app = TestApp::start(Settings::default()).await;
    let names = ["rocket.jpg", "coffee.jpg", "chelsea.jpg"];
    let (status, body) =
        read_json(app.post_form(file_form(names.map(|name| (name, read_sample(name))))).await).await;
    assert_eq!(status, 200);
    let listed: Vec<&str> =
        body.as_array().unwrap().iter().map(|entry| entry["file"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    assert_eq!(app.topic.published().len(), 3);
}

#[tokio::test]
async fn form_with_accepted_and_refused_files_gives_207() {
    let app = TestApp::start(Settings::default()).await;
    let files = [
        ("coffee.jpg", read_sample("coffee.jpg")),
        ("notes.txt", b"hello".to_vec()),
        ("drawing.svg", b"<svg/>".to_vec()),
    ];
    let (status, body) = read_json(app.post_form(file_form(files)).await).await;
    assert_eq!(status, 207);
    insta::assert_json_snapshot!(without_avif(&body), @r#"
[
  {
    "duplicate": false,
    "file": "coffee.jpg",
    "gcs_path": "gs://test-bucket/de0844c68df01e09f3253c18b7d751b5/image.jpg",
    "height": 256,
    "id": "de0844c68df01e09f3253c18b7d751b5",
    "status": 200,
    "width": 384
  },
  {
    "error": {
      "detail": "This is not an image. Send one of: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC.",
      "kind": "not_an_image"
    },
    "file": "notes.txt",
    "status": 422
  },
  {
    "error": {
      "accepted": [
        "JPEG",
        "PNG",
        "WebP",
        "GIF",
        "BMP",
        "TIFF",
        "HEIC"
      ],
      "detail": "SVG is not accepted. Convert it to one of: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC.",
      "kind": "unsupported_format"
    },
    "file": "drawing.svg",
    "status": 415
  }
]
"#);
    assert_eq!(app.topic.published().len(), 1);
}

#[tokio::test]
async fn form_with_files_that_cannot_be_announced_gives_207_with_retry_after() {
    let app = TestApp::start(Settings::default()).await;
    app.topic.broken.store(true, Ordering::SeqCst);
    let files = [("coffee.jpg", read_sample("coffee.jpg")), ("chelsea.jpg", read_sample("chelsea.jpg"))];
    let (status, body) = read_json(app.post_form(file_form(files)).await).await;
    assert_eq!(status, 207);
    for entry in body.as_array().unwrap() {
        assert_eq!((&entry["status"], &entry["error"]["kind"]), (&503.into(), &"topic_unavailable".into()));
        assert!(entry["error"]["retry_after"].as_u64().unwrap() >= 1);
        assert!(!entry.to_string().contains("on fire"), "the cause of the failure is private");
    }
}

#[tokio::test]
async fn duplicate_is_announced_until_it_has_a_prediction() {
    let app = TestApp::start(Settings::default()).await;
    let upload = || async { read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await.1 };
    let first = upload().await;
    assert_eq!(first["duplicate"], false);
    assert_eq!(upload().await["duplicate"], true);
    assert_eq!(app.topic.published().len(), 2);

    let id: ImageId = first["id"].as_str().unwrap().parse().unwrap();
    app.bucket.store(id.record_object_name(PREDICTION, None), r#"{"label":"espresso"}"#).await;
    assert_eq!(upload().await["duplicate"], true);
    assert_eq!(app.topic.published().len(), 2);
}

#[tokio::test]
async fn repeated_upload_announces_an_image_that_the_topic_refused() {
    let app = TestApp::start(Settings::default()).await;
    app.topic.broken.store(true, Ordering::SeqCst);
    let refused = app.post("image/jpeg", read_sample("coffee.jpg")).await;
    assert!(refused.headers().contains_key("retry-after"));
    let (status, body) = read_problem(refused).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (503, "topic_unavailable"));

    app.topic.broken.store(false, Ordering::SeqCst);
    let (status, body) = read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await;
    assert_eq!((status.as_u16(), &body["duplicate"]), (200, &true.into()));
    assert_eq!(app.topic.published().len(), 1);
}

#[tokio::test]
async fn unavailable_bucket_gives_503_and_no_announcement() {
    let app = TestApp::start(Settings::default()).await;
    app.bucket.broken.store(true, Ordering::SeqCst);
    let refused = app.post("image/jpeg", read_sample("coffee.jpg")).await;
    assert!(refused.headers().contains_key("retry-after"));
    let (status, body) = read_problem(refused).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (503, "bucket_unavailable"));
    assert!(!body.to_string().contains("on fire"), "the cause of the failure is private");
    assert!(app.topic.published().is_empty(), "an image that is not stored must not be announced");
}

#[tokio::test]
async fn announcement_continues_the_trace_of_the_request() {
    let app = TestApp::start(Settings::default()).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = app.upload_request().header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    request.header("content-type", "image/jpeg").body(read_sample("coffee.jpg")).send().await.unwrap();
    let traceparent = app.topic.published()[0].attributes["traceparent"].clone();
    assert!(
        traceparent.starts_with(&format!("00-{trace}-")) && traceparent.ends_with("-01"),
        "{traceparent}"
    );
    assert!(!traceparent.contains("00f067aa0ba902b7"), "the announcement has a span of its own");
}

#[tokio::test]
async fn upload_in_progress_is_finished_when_the_service_stops() {
    let app = Arc::new(TestApp::start(Settings::default()).await);
    app.topic.open.send_replace(false);
    let uploading = tokio::spawn({
        let app = Arc::clone(&app);
        async move { read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await.0 }
    });
    app.topic.publish_called.notified().await;
    app.stop.cancel();
    app.topic.open.send_replace(true);
    assert_eq!(uploading.await.unwrap(), 200);
    assert_eq!(app.topic.published().len(), 1);
    Arc::into_inner(app).unwrap().wait_until_stopped().await;
}

#[tokio::test]
async fn index_ready_live_and_metrics_respond_with_200() {
    let app = TestApp::start(Settings::default()).await;
    let (status, index) = read_json(app.get("/").await).await;
    assert_eq!(status, 200);
    assert!(index["routes"]["POST /preprocess"].is_string());
    let (status, ready) = read_json(app.get("/ready").await).await;
    assert_eq!((status.as_u16(), &ready["service"]), (200, &"preprocess".into()));
    assert_eq!(ready["recipe"], Settings::default().recipe().id_text());
    assert_eq!(app.get("/live").await.status(), 200);
    assert_eq!(app.get("/metrics").await.status(), 200);
}

#[tokio::test]
async fn ready_gives_503_while_the_bucket_or_the_topic_is_broken() {
    for kind in ["bucket_unavailable", "topic_unavailable"] {
        let app = TestApp::start(Settings::default()).await;
        let broken = if kind == "topic_unavailable" { &app.topic.broken } else { &app.bucket.broken };
        broken.store(true, Ordering::SeqCst);
        let response = app.get("/ready").await;
        assert!(response.headers().contains_key("retry-after"));
        let (status, body) = read_problem(response).await;
        assert_eq!((status, body["kind"].as_str().unwrap()), (503, kind));
        assert!(!body.to_string().contains("on fire"), "the cause of the failure is private");
        assert_eq!(app.get("/live").await.status(), 200);
    }
}

#[tokio::test]
async fn same_upload_replaces_a_damaged_image_and_announces_it() {
    let app = TestApp::start(Settings::default()).await;
    let coffee = read_sample("coffee.jpg");
    let (_, first) = read_json(app.post("image/jpeg", coffee.clone()).await).await;
    let id: ImageId = first["id"].as_str().unwrap().parse().unwrap();
    let image = app.bucket.read_image(&id).await;
    let name = || id.image_object_name();
    let damage: [(&str, &dyn Fn()); 4] = [
        ("checked", &|| app.bucket.damage(name())),
        ("cut", &|| app.bucket.store_without_checksum(name(), image.slice(..image.len() - 1))),
        ("zeroed", &|| app.bucket.store_without_checksum(name(), vec![0; image.len()])),
        ("empty", &|| app.bucket.store_without_checksum(name(), "")),
    ];
    for (count, (kind, damage)) in damage.into_iter().enumerate() {
        damage();
        let (status, body) = read_json(app.post("image/jpeg", coffee.clone()).await).await;
        assert_eq!((status.as_u16(), &body), (200, &first), "{kind}: the upload is no duplicate");
        assert!(app.bucket.read_image(&id).await == image, "{kind}");
        assert_eq!(app.topic.published().len(), count + 2, "{kind}");
    }
    app.bucket.store(id.record_object_name(PREDICTION, None), r#"{"label":"espresso"}"#).await;
    let (_, body) = read_json(app.post("image/jpeg", coffee).await).await;
    assert_eq!((&body["duplicate"], app.topic.published().len()), (&true.into(), 5));
}

#[tokio::test]
async fn same_upload_is_announced_again_if_its_prediction_is_damaged() {
    let app = TestApp::start(Settings::default()).await;
    let coffee = read_sample("coffee.jpg");
    let (_, body) = read_json(app.post("image/jpeg", coffee.clone()).await).await;
    let id: ImageId = body["id"].as_str().unwrap().parse().unwrap();
    app.bucket.store(id.record_object_name(PREDICTION, None), r#"{"label":"espresso"}"#).await;
    app.bucket.damage(id.record_object_name(PREDICTION, None));
    let (_, body) = read_json(app.post("image/jpeg", coffee).await).await;
    assert_eq!((&body["duplicate"], app.topic.published().len()), (&true.into(), 2));
}

#[tokio::test]
async fn same_upload_is_a_duplicate_if_its_record_is_too_large_to_be_read() {
    let app = TestApp::start(Settings::default()).await;
    let coffee = read_sample("coffee.jpg");
    let (_, body) = read_json(app.post("image/jpeg", coffee.clone()).await).await;
    let id: ImageId = body["id"].as_str().unwrap().parse().unwrap();
    app.bucket.store_without_checksum(
        id.record_object_name(PREDICTION, None),
        vec![b' '; MAX_PREDICTION_BYTES + 1],
    );
    let (status, body) = read_json(app.post("image/jpeg", coffee).await).await;
    assert_eq!((status.as_u16(), &body["duplicate"]), (200, &true.into()));
    assert_eq!(app.topic.published().len(), 1, "classify would not replace the record");
    assert_eq!(app.get(&format!("/predictions/{id}")).await.status(), 500);
}
