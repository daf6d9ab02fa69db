//! Tests of `POST /classify`, and of the routes that describe the service.

use classify::model::{CLASSES, compiled_model, spec};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::rig::{
    ESPRESSO, Gate, Rig, Verdict, encode_png, hide_model_and_backend, read_json, read_problem, read_sample,
};

#[tokio::test]
async fn photo_of_coffee_is_espresso_as_raw_body_form_and_stored_object() {
    let rig = Rig::with_network().await;
    let photo = read_sample("coffee.jpg");
    rig.store("a/coffee.jpg", photo.clone()).await;

    let raw = read_json(
        rig.post("/classify").header("content-type", "image/jpeg").body(photo.clone()).send().await,
    )
    .await;
    let form = Form::new().text("note", "ignored").part("file", Part::bytes(photo));
    let multipart = read_json(rig.post("/classify").multipart(form).send().await).await;
    let stored =
        read_json(rig.post("/classify").json(&json!({"gcs_path": "gs://local/a/coffee.jpg"})).send().await)
            .await;

    for (status, body) in [&raw, &multipart, &stored] {
        assert_eq!((*status, &body["label"]), (200, &json!(spec::LABELS[ESPRESSO].1)), "{body}");
        assert!(body["confidence"].as_f64().unwrap() > 0.5, "{body}");
        assert_eq!(body["top"].as_array().unwrap().len(), 5, "{body}");
        assert_eq!(body["top"][0]["index"], ESPRESSO, "{body}");
        assert_eq!(body["model"], spec::NAME, "{body}");
    }
    assert_eq!(raw.1["top"], stored.1["top"], "the same bytes give the same classes");
    assert_eq!(rig.stored("a/coffee.jpg.prediction.json").await.unwrap()["top"], stored.1["top"]);
}

#[tokio::test]
async fn responses_match_their_snapshots() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("a/image.jpg", encode_png()).await;
    let request = json!({"gcs_path": "gs://local/a/image.jpg", "top_k": 2, "something": "else"});
    let (status, body) = read_json(rig.post("/classify").json(&request).send().await).await;
    assert_eq!(status, 200);
    insta::assert_json_snapshot!(hide_model_and_backend(body), @r#"
    {
      "backend": "BACKEND",
      "confidence": 0.95661324,
      "duplicate": false,
      "gcs_path": "gs://local/a/image.jpg",
      "label": "espresso",
      "model": "MODEL",
      "model_sha256": "CHECKSUM",
      "top": [
        {
          "confidence": 0.95661324,
          "index": 967,
          "label": "espresso",
          "wnid": "n07920052"
        },
        {
          "confidence": 0.000043430173,
          "index": 0,
          "label": "tench",
          "wnid": "n01440764"
        }
      ]
    }
    "#);
    let (status, body) = read_json(rig.post_image_with_query("top_k=1").send().await).await;
    assert_eq!(status, 200);
    insta::assert_json_snapshot!(hide_model_and_backend(body), @r#"
    {
      "backend": "BACKEND",
      "confidence": 0.95661324,
      "duplicate": false,
      "label": "espresso",
      "model": "MODEL",
      "model_sha256": "CHECKSUM",
      "top": [
        {
          "confidence": 0.95661324,
          "index": 967,
          "label": "espresso",
          "wnid": "n07920052"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn second_request_is_answered_from_the_record_if_the_record_has_enough_classes() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("image.jpg", encode_png()).await;
    let is_duplicate = async |top_k: usize| {
        let request = json!({"gcs_path": "gs://local/image.jpg", "top_k": top_k});
        let (status, body) = read_json(rig.post("/classify").json(&request).send().await).await;
        assert_eq!((status, body["top"].as_array().unwrap().len()), (200, top_k));
        body["duplicate"].as_bool().unwrap()
    };
    assert!(!is_duplicate(2).await);
    assert!(is_duplicate(2).await, "the record has the default number of classes, which is enough");
    assert!(is_duplicate(5).await);
    assert!(!is_duplicate(6).await, "the record has too few classes");
    assert!(is_duplicate(5).await, "the record still has five classes");
    assert_eq!(rig.stored("image.jpg.prediction.json").await.unwrap()["top"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn record_of_a_different_model_is_not_used_and_the_new_one_is_stored_beside_it() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("image.jpg", encode_png()).await;
    let other_record = json!({"gcs_path": "gs://local/image.jpg", "label": "teapot", "confidence": 0.5, "model": "other",
        "backend": "other", "top": (0..9).map(|index| json!({"label": "teapot", "index": index, "confidence": 0.1})).collect::<Vec<_>>()});
    rig.store("image.jpg.prediction.json", other_record.to_string()).await;
    let request = json!({"gcs_path": "gs://local/image.jpg"});
    let (status, body) = read_json(rig.post("/classify").json(&request).send().await).await;
    assert_eq!(
        (status, &body["model"], &body["duplicate"]),
        (200, &json!(spec::NAME), &json!(false)),
        "{body}"
    );
    assert_eq!(
        rig.stored("image.jpg.prediction.json").await.unwrap(),
        other_record,
        "a record is never overwritten"
    );
    let record = rig.stored(&format!("image.jpg.prediction.{}.json", compiled_model().key())).await.unwrap();
    assert_eq!((&record["model"], &record["model_sha256"]), (&json!(spec::NAME), &json!(spec::ONNX_SHA256)));
    let (_, body) = read_json(rig.post("/classify").json(&request).send().await).await;
    assert_eq!((&body["model"], &body["duplicate"]), (&json!(spec::NAME), &json!(true)), "{body}");
    assert_eq!(rig.results.messages().len(), 1);
}

#[tokio::test]
async fn threshold_shortens_the_list_and_keeps_the_label() {
    let rig = Rig::with_espresso_engine().await;
    let (_, body) = read_json(rig.post_image_with_query("threshold=0.5").send().await).await;
    assert_eq!(body["top"].as_array().unwrap().len(), 1, "{body}");
    let (_, body) = read_json(rig.post_image_with_query("threshold=1").send().await).await;
    assert_eq!((&body["top"], &body["label"]), (&json!([]), &json!(spec::LABELS[ESPRESSO].1)), "{body}");
}

#[tokio::test]
async fn bad_request_is_refused_with_the_status_and_kind_of_its_problem() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("text", "hello").await;
    rig.store("good", encode_png()).await;
    let post_json = |body: Value| rig.post("/classify").json(&body).send();
    let post_path = |path: &str| post_json(json!({ "gcs_path": path }));
    let problem = |status: u16, kind: &str| (status, kind.to_owned());

    let truncated_json = rig.post("/classify").header("content-type", "application/json").body("{").send();
    assert_eq!(read_problem(truncated_json.await).await, problem(400, "bad_json"));
    assert_eq!(read_problem(post_json(json!({"path": "x"})).await).await, problem(400, "bad_json"));
    assert_eq!(
        read_problem(post_json(json!({"gcs_path": "gs://local/good", "top_k": "many"})).await).await,
        problem(400, "bad_json")
    );
    assert_eq!(
        read_problem(post_json(json!(["gs://local/good", 1, 0.5])).await).await,
        problem(400, "bad_json")
    );
    assert_eq!(read_problem(post_path("http://local/x").await).await, problem(422, "bad_path"));
    assert_eq!(read_problem(post_path("gs://local/../x").await).await, problem(422, "bad_path"));
    assert_eq!(read_problem(post_path("gs://other/x").await).await, problem(422, "wrong_bucket"));
    assert_eq!(read_problem(post_path("gs://local/nothing").await).await, problem(404, "no_such_object"));
    assert_eq!(read_problem(post_path("gs://local/text").await).await, problem(422, "not_an_image"));
    assert_eq!(read_problem(rig.post_image("").send().await).await, problem(422, "not_an_image"));
    assert_eq!(
        read_problem(rig.post_image("GIF89a\x01\0\x01\0\0\0\0").send().await).await,
        problem(415, "unsupported_format")
    );
    let urlencoded_form = rig
        .post("/classify")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("gcs_path=x")
        .send();
    assert_eq!(read_problem(urlencoded_form.await).await, problem(415, "unsupported_media_type"));
    let post_form = |form| rig.post("/classify").multipart(form).send();
    assert_eq!(read_problem(post_form(Form::new().text("other", "x")).await).await, problem(422, "no_file"));
    let two_files =
        Form::new().part("file", Part::bytes(encode_png())).part("file", Part::bytes(encode_png()));
    assert_eq!(read_problem(post_form(two_files).await).await, problem(422, "too_many_files"));
    let broken_form =
        rig.post("/classify").header("content-type", "multipart/form-data; boundary=x").body("--y").send();
    assert_eq!(read_problem(broken_form.await).await, problem(400, "bad_multipart"));

    let post_query = |name: &str, value: &str| rig.post_image_with_query(&format!("{name}={value}")).send();
    assert_eq!(read_problem(post_query("top_k", "many").await).await, problem(400, "bad_query"));
    for top_k in ["0".to_owned(), (CLASSES + 1).to_string()] {
        assert_eq!(read_problem(post_query("top_k", &top_k).await).await, problem(422, "bad_top_k"));
    }
    for threshold in ["-0.1", "1.1", "NaN"] {
        assert_eq!(
            read_problem(post_query("threshold", threshold).await).await,
            problem(422, "bad_threshold")
        );
    }
    rig.bucket.set_down(true);
    assert_eq!(read_problem(post_path("gs://local/good").await).await, problem(503, "bucket_unavailable"));
}

#[tokio::test]
async fn images_over_the_limits_are_refused_before_they_are_decoded() {
    // The image of `encode_png` has 64 pixels.
    let settings = classify::Settings {
        max_pixels: 63,
        max_image_bytes: 2000,
        max_body_bytes: 3000,
        ..classify::Settings::default()
    };
    let (engine, _gate) = Gate::new(false);
    let rig = Rig::with_engines(settings, vec![engine]).await;
    assert_eq!(read_problem(rig.post_image(encode_png()).send().await).await, (422, "too_large".to_owned()));
    assert_eq!(read_problem(rig.post_image(vec![0; 2001]).send().await).await, (413, "too_large".to_owned()));
    assert_eq!(
        read_problem(rig.post_image(vec![0; 3001]).send().await).await,
        (413, "body_too_large".to_owned())
    );
    rig.store("large", vec![0; 2001]).await;
    let stored = rig.post("/classify").json(&json!({"gcs_path": "gs://local/large"})).send();
    assert_eq!(read_problem(stored.await).await, (413, "too_large".to_owned()));
}

#[tokio::test]
async fn ready_reports_the_model_only_after_the_warm_up() {
    let (engine, mut gate) = Gate::new(true);
    let rig = Rig::start_without_waiting(classify::Settings::default(), vec![engine]).await;
    gate.next_batch().await;
    assert_eq!(read_problem(rig.get("/ready").send().await).await, (503, "starting".to_owned()));
    assert_eq!(read_problem(rig.post_image(encode_png()).send().await).await, (503, "starting".to_owned()));
    assert_eq!(rig.get("/live").send().await.unwrap().status(), 200);
    gate.release(Verdict::Espresso);
    let rig = rig.wait_until_ready().await;
    let (_, body) = read_json(rig.get("/ready").send().await).await;
    for (member, value) in
        [("service", "classify"), ("model", spec::NAME), ("model_sha256", spec::ONNX_SHA256)]
    {
        assert_eq!(body[member], value, "{body}");
    }
    assert_eq!(
        (&body["backend"], &body["engines"]),
        (&json!(classify::backend::Backend::default().name()), &json!(1))
    );
    let (status, index) = read_json(rig.get("/").send().await).await;
    assert_eq!((status, &index["model"]), (200, &json!(spec::NAME)));
    assert!(index["routes"].as_object().unwrap().contains_key("POST /classify"));
}

#[tokio::test]
async fn warm_up_that_panics_ends_the_service() {
    let (engine, gate) = Gate::new(true);
    gate.release(Verdict::Panic);
    let mut rig = Rig::start_without_waiting(classify::Settings::default(), vec![engine]).await;
    let error = (&mut rig.task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("did not warm up"), "{error:#}");
}

#[tokio::test]
async fn warm_up_that_hangs_ends_the_service() {
    let (engine, gate) = Gate::new(true);
    let settings = classify::Settings {
        warm_up_timeout: std::time::Duration::from_millis(100),
        ..classify::Settings::default()
    };
    let mut rig = Rig::start_without_waiting(settings, vec![engine]).await;
    let error = (&mut rig.task).await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("did not warm up within 0.1 s (CLASSIFY_WARM_UP_TIMEOUT)"),
        "{error:#}"
    );
    // The gate must live until here. Without its gate, the engine would fail and not hang.
    drop(gate);
}

#[tokio::test]
async fn json_is_limited_apart_from_images_and_unknown_members_are_skipped() {
    let settings = classify::Settings::default();
    let limit = settings.max_json_bytes;
    let (engine, gate) = Gate::new(false);
    let rig = Rig::with_engines(settings, vec![engine]).await;
    rig.store("image.png", encode_png()).await;
    let post = |byte_count: usize| {
        let (start, end) = (r#"{"x":[{"":0}"#, r#"],"gcs_path":"gs:\/\/local/image.png","top_k":1}"#);
        let body = format!("{start}{}{end}", " ".repeat(byte_count - start.len() - end.len()));
        rig.post("/classify").header("content-type", "application/json").body(body).send()
    };
    gate.release(Verdict::Espresso);
    let (status, body) = read_json(post(limit).await).await;
    assert_eq!((status, body["top"].as_array().map(Vec::len)), (200, Some(1)), "{body}");
    assert_eq!(read_problem(post(limit + 1).await).await, (413, "body_too_large".to_owned()));
}
