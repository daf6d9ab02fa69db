//! Tests of `GET /predictions/{id}` and of repeated uploads after the model of classify has changed.
//!
//! The new model may be of another kind than the former one: it may compute embeddings instead of predictions.

use contract::{EMBEDDING, ImageId, ModelId, PREDICTION};
use preprocess::Settings;
use serde_json::{Value, json};

use crate::support::{TestApp, current_model, read_json, read_problem, read_sample};

/// Returns a model with the name of [`current_model`] and another file.
fn former_model() -> ModelId {
    ModelId::new("flowers", "0a".repeat(32))
}

fn other_model() -> ModelId {
    ModelId::new("mobilenet", "0c".repeat(32))
}

/// Returns the record of a prediction by `model`.
fn record(model: &ModelId) -> String {
    json!({"label": "espresso", "model": model.name(), "model_sha256": model.sha256()}).to_string()
}

/// Returns the record of a prediction or of an embedding by `model`.
fn record_of_kind(base_name: &str, model: &ModelId) -> String {
    match base_name {
        EMBEDDING => record(model).replace(r#""label":"espresso""#, r#""embedding":[0.5]"#),
        _ => record(model),
    }
}

async fn upload_coffee(app: &TestApp) -> Value {
    read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await.1
}

/// Starts a service, uploads a photo and stores the record of the `first` model. The announcement is delivered.
async fn start_with_record(
    base_name: &str,
    current: Option<&ModelId>,
    first: &ModelId,
) -> (TestApp, ImageId) {
    let app = TestApp::start_with_model(Settings::default(), current.map(ModelId::key)).await;
    let id: ImageId = upload_coffee(&app).await["id"].as_str().unwrap().parse().unwrap();
    app.bucket.store(id.record_object_name(base_name, None), record_of_kind(base_name, first)).await;
    app.topic.clear();
    (app, id)
}

/// Asserts that a request has a problem as its response.
async fn assert_problem(app: &TestApp, path: &str, status: u16, kind: &str) {
    let (found, body) = read_problem(app.get(path).await).await;
    assert_eq!((found, body["kind"].as_str().unwrap()), (status, kind), "{path}");
}

#[tokio::test]
async fn image_of_another_model_is_announced_once_and_pending_until_the_current_model_has_classified_it() {
    let current = current_model();
    let (app, id) = start_with_record(PREDICTION, Some(&current), &former_model()).await;
    let path = format!("/predictions/{id}");
    for _ in 0..3 {
        let (status, body) = read_json(app.get(&path).await).await;
        assert_eq!((status.as_u16(), &body["status"]), (202, &json!("pending")));
        assert_eq!(app.topic.published().len(), 1);
    }
    // Once the message is delivered, it is not sent again for some time.
    app.topic.clear();
    assert_eq!(app.get(&format!("{path}?model={}", current.key())).await.status(), 202);
    assert!(app.topic.published().is_empty());
    app.bucket.store(id.record_object_name(PREDICTION, Some(&current.key())), record(&current)).await;
    for query in ["", "?wait=30", "?model=flowers", "?model=flowers-0b0b0b0b", "?wait=0&model=flowers"] {
        let response = app.get(&format!("{path}{query}")).await;
        assert_eq!(response.text().await.unwrap(), record(&current), "{query}");
    }
    let former = app.get(&format!("{path}?model=flowers-0a0a0a0a")).await;
    assert_eq!(former.text().await.unwrap(), record(&former_model()));
}

#[tokio::test]
async fn prediction_of_any_model_is_found_by_name_and_checksum_and_of_the_first_model_by_name() {
    let (app, id) = start_with_record(PREDICTION, Some(&current_model()), &other_model()).await;
    let path = format!("/predictions/{id}");
    for model in [former_model(), current_model()] {
        app.bucket.store(id.record_object_name(PREDICTION, Some(&model.key())), record(&model)).await;
    }
    for (selector, model) in [
        ("mobilenet", other_model()),
        ("mobilenet-0c0c0c0c", other_model()),
        ("flowers", current_model()),
        ("flowers-0a0a0a0a", former_model()),
        ("flowers-0b0b0b0b", current_model()),
    ] {
        let response = app.get(&format!("{path}?model={selector}")).await;
        assert_eq!(response.text().await.unwrap(), record(&model), "{selector}");
    }
    assert!(app.topic.published().is_empty());
}

#[tokio::test]
async fn model_without_a_prediction_gives_404_and_text_that_is_no_model_400() {
    let (app, id) = start_with_record(PREDICTION, Some(&current_model()), &other_model()).await;
    let path = format!("/predictions/{id}");
    for selector in ["roses", "roses-0a0a0a0a", "mobilenet-0a0a0a0a"] {
        for wait in ["", "&wait=30"] {
            let path = format!("{path}?model={selector}{wait}");
            assert_problem(&app, &path, 404, "no_prediction_of_model").await;
        }
    }
    let long = "n".repeat(74);
    for selector in ["", "..%2F..%2Fsecret", "a/b", "a%20b", &long] {
        assert_problem(&app, &format!("{path}?model={selector}"), 400, "bad_model").await;
    }
    let unknown = "0".repeat(32);
    assert_problem(&app, &format!("/predictions/{unknown}?model=flowers"), 404, "no_such_image").await;
    assert!(app.topic.published().is_empty(), "a former model makes no further predictions");
}

#[tokio::test]
async fn former_model_of_an_image_that_is_not_classified_yet_gives_404_and_the_current_one_202() {
    let app = TestApp::start(Settings::default()).await;
    let id = upload_coffee(&app).await["id"].as_str().unwrap().to_owned();
    assert_eq!(app.get(&format!("/predictions/{id}?model=flowers")).await.status(), 202);
    assert_problem(&app, &format!("/predictions/{id}?model=roses&wait=30"), 404, "no_prediction_of_model")
        .await;
}

#[tokio::test]
async fn deleted_image_with_a_record_of_another_model_gives_404_no_prediction_of_model() {
    let app = TestApp::start(Settings::default()).await;
    let id: ImageId = "0".repeat(32).parse().unwrap();
    app.bucket.store(id.record_object_name(PREDICTION, None), record(&former_model())).await;
    for query in ["", "?model=flowers-0b0b0b0b", "?model=roses-0a0a0a0a"] {
        assert_problem(&app, &format!("/predictions/{id}{query}"), 404, "no_prediction_of_model").await;
    }
    assert_eq!(app.get(&format!("/predictions/{id}?model=flowers-0a0a0a0a")).await.status(), 200);
    assert!(app.topic.published().is_empty());
}

#[tokio::test]
async fn failure_of_the_image_is_the_answer_for_every_model() {
    let app = TestApp::start(Settings::default()).await;
    let id: ImageId = upload_coffee(&app).await["id"].as_str().unwrap().parse().unwrap();
    let failure = r#"{"gcs_path":"gs://b/o","error":{"reason":"too_large","message":"…"}}"#;
    app.bucket.store(id.record_object_name(PREDICTION, None), failure).await;
    for query in ["", "?model=flowers", "?model=roses-0a0a0a0a"] {
        let response = app.get(&format!("/predictions/{id}{query}")).await;
        assert_eq!(response.text().await.unwrap(), failure, "{query}");
    }
}

#[tokio::test]
async fn same_upload_is_announced_until_the_current_model_has_classified_it() {
    let current = current_model();
    let (app, id) = start_with_record(PREDICTION, Some(&current), &former_model()).await;
    assert_eq!(upload_coffee(&app).await["duplicate"], true);
    assert_eq!(app.topic.published().len(), 1);
    app.bucket.store(id.record_object_name(PREDICTION, Some(&current.key())), record(&current)).await;
    assert_eq!(upload_coffee(&app).await["duplicate"], true);
    assert_eq!(app.topic.published().len(), 1);
}

#[tokio::test]
async fn without_a_known_model_every_upload_is_announced_and_the_first_prediction_is_returned() {
    let (app, id) = start_with_record(PREDICTION, None, &former_model()).await;
    assert_eq!(upload_coffee(&app).await["duplicate"], true);
    assert_eq!(app.topic.published().len(), 1, "only classify knows whether the model is new");
    let path = format!("/predictions/{id}");
    assert_eq!(app.get(&path).await.text().await.unwrap(), record(&former_model()));
    let model = other_model();
    assert_problem(&app, &format!("{path}?model={}", model.key()), 404, "no_prediction_of_model").await;
    app.bucket.store(id.record_object_name(PREDICTION, Some(&model.key())), record(&model)).await;
    let response = app.get(&format!("{path}?model={}", model.key())).await;
    assert_eq!(response.text().await.unwrap(), record(&model));
    assert_eq!(app.get(&path).await.text().await.unwrap(), record(&former_model()));
}

#[tokio::test]
async fn damaged_prediction_of_a_later_model_is_pending_and_its_image_is_announced() {
    let current = current_model();
    let (app, id) = start_with_record(PREDICTION, Some(&current), &former_model()).await;
    let name = id.record_object_name(PREDICTION, Some(&current.key()));
    app.bucket.store_without_checksum(name, r#"{"label":"#);
    assert_eq!(app.get(&format!("/predictions/{id}")).await.status(), 202);
    assert_eq!(app.topic.published().len(), 1);
    let former = app.get(&format!("/predictions/{id}?model=flowers-0a0a0a0a")).await;
    assert_eq!(former.text().await.unwrap(), record(&former_model()));
}

#[tokio::test]
async fn record_of_a_later_model_is_the_answer_although_the_first_record_is_damaged_or_deleted() {
    let (current, former) = (current_model(), former_model());
    for base_name in [PREDICTION, EMBEDDING] {
        for is_deleted in [false, true] {
            let app = TestApp::start(Settings::default()).await;
            let id: ImageId = upload_coffee(&app).await["id"].as_str().unwrap().parse().unwrap();
            app.topic.clear();
            for model in [&current, &former] {
                let name = id.record_object_name(base_name, Some(&model.key()));
                app.bucket.store(name, record_of_kind(base_name, model)).await;
            }
            if !is_deleted {
                app.bucket.store_without_checksum(id.record_object_name(base_name, None), r#"{"label":"#);
            }
            for (query, model) in
                [("", &current), ("?model=flowers-0b0b0b0b", &current), ("?model=flowers-0a0a0a0a", &former)]
            {
                let response = app.get(&format!("/predictions/{id}{query}")).await;
                let body = response.text().await.unwrap();
                assert_eq!(body, record_of_kind(base_name, model), "{base_name}{query} {is_deleted}");
            }
            assert_eq!(upload_coffee(&app).await["duplicate"], true);
            assert!(app.topic.published().is_empty(), "{base_name} {is_deleted}");
        }
    }
}

#[tokio::test]
async fn record_of_the_current_model_is_the_answer_beside_a_record_of_the_other_kind() {
    for (former_kind, current_kind) in [(PREDICTION, EMBEDDING), (EMBEDDING, PREDICTION)] {
        let (former, current) = (former_model(), current_model());
        let (app, id) = start_with_record(former_kind, Some(&current), &former).await;
        let path = format!("/predictions/{id}");
        for _ in 0..2 {
            assert_eq!(app.get(&path).await.status(), 202, "{current_kind}");
            assert_eq!(app.topic.published().len(), 1, "{current_kind}");
        }
        app.topic.clear();
        let current_record = record_of_kind(current_kind, &current);
        app.bucket.store(id.record_object_name(current_kind, None), current_record.clone()).await;
        for (query, expected) in [
            ("", &current_record),
            ("?model=flowers-0b0b0b0b", &current_record),
            ("?model=flowers-0a0a0a0a", &record_of_kind(former_kind, &former)),
        ] {
            let response = app.get(&format!("{path}{query}")).await;
            assert_eq!(&response.text().await.unwrap(), expected, "{current_kind}{query}");
        }
        assert_eq!(upload_coffee(&app).await["duplicate"], true);
        assert!(app.topic.published().is_empty(), "{current_kind}");
    }
}

#[tokio::test]
async fn later_model_of_embeddings_is_found_beside_the_records_of_both_kinds() {
    let current = current_model();
    let (app, id) = start_with_record(PREDICTION, Some(&current), &other_model()).await;
    app.bucket
        .store(id.record_object_name(EMBEDDING, None), record_of_kind(EMBEDDING, &former_model()))
        .await;
    let path = format!("/predictions/{id}");
    assert_eq!(app.get(&path).await.status(), 202);
    let current_record = record_of_kind(EMBEDDING, &current);
    app.bucket.store(id.record_object_name(EMBEDDING, Some(&current.key())), current_record.clone()).await;
    for (query, expected) in [
        ("", &current_record),
        ("?model=flowers-0a0a0a0a", &record_of_kind(EMBEDDING, &former_model())),
        ("?model=mobilenet", &record(&other_model())),
    ] {
        let response = app.get(&format!("{path}{query}")).await;
        assert_eq!(&response.text().await.unwrap(), expected, "{query}");
    }
}

#[tokio::test]
async fn embedding_of_the_current_model_takes_precedence_over_a_failure_and_a_damaged_prediction() {
    let failure = r#"{"gcs_path":"gs://b/o","error":{"reason":"too_large","message":"…"}}"#;
    for (prediction, other_answer) in [(failure, Some(failure)), (r#"{"label":"#, None)] {
        for model in [current_model(), former_model()] {
            let (app, id) = start_with_record(EMBEDDING, Some(&current_model()), &model).await;
            app.bucket.store_without_checksum(id.record_object_name(PREDICTION, None), prediction);
            let response = app.get(&format!("/predictions/{id}")).await;
            let is_current = model == current_model();
            let expected = if is_current {
                Some(record_of_kind(EMBEDDING, &model))
            } else {
                other_answer.map(str::to_owned)
            };
            assert_eq!(response.status(), if expected.is_some() { 200 } else { 202 }, "{prediction}");
            if let Some(expected) = &expected {
                assert_eq!(&response.text().await.unwrap(), expected);
            }
            assert_eq!(app.topic.published().len(), usize::from(expected.is_none()), "{prediction}");
        }
    }
}

#[tokio::test]
async fn without_a_known_model_an_embedding_is_returned_if_there_is_no_prediction() {
    let (app, id) = start_with_record(EMBEDDING, None, &former_model()).await;
    let path = format!("/predictions/{id}");
    let embedding = record_of_kind(EMBEDDING, &former_model());
    assert_eq!(app.get(&path).await.text().await.unwrap(), embedding);
    app.bucket.store(id.record_object_name(PREDICTION, None), record(&other_model())).await;
    assert_eq!(app.get(&path).await.text().await.unwrap(), record(&other_model()));
    let response = app.get(&format!("{path}?model=flowers")).await;
    assert_eq!(response.text().await.unwrap(), embedding);
}
