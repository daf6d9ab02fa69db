//! Tests of models with other heads than the compiled-in model: binary, multi-label and embedding.
//!
//! The engine gives fixed outputs, and the head is a setting of the rig. The tests therefore do not cover the
//! generated code and constants of such a model. The tests of model-import cover the constants.

use std::sync::Arc;

use classify::{
    Settings,
    model::{Head, OutputKind},
};
use contract::{ModelId, ResultMessage};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::rig::{Rig, TestBucket, encode_png, hide_model_and_backend, read_json, read_problem};

/// Id of an image that preprocess stored.
const ID: &str = "0123456789abcdef0123456789abcdef";

const EMBEDDING: Head =
    Head { kind: OutputKind::Embedding, output_count: 3, needs_sigmoid: false, threshold: 0.5, labels: &[] };
const MULTILABEL: Head = Head {
    kind: OutputKind::Multilabel,
    output_count: 4,
    labels: &[("", "cat"), ("", "dog"), ("", "bird"), ("", "fish")],
    ..EMBEDDING
};
const BINARY: Head =
    Head { kind: OutputKind::Binary, output_count: 1, labels: &[("", "no cat"), ("", "cat")], ..EMBEDDING };

async fn embedding_rig() -> Rig {
    Rig::with_head(EMBEDDING, &[0.5, -1.25, 3.0]).await
}

/// Returns the labels of the class list.
fn top_labels(body: &Value) -> Vec<&str> {
    body["top"].as_array().unwrap().iter().map(|class| class["label"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn embedding_is_returned_for_a_raw_body_a_form_and_a_stored_object() {
    let rig = embedding_rig().await;
    rig.store("a/cat.png", encode_png()).await;
    let raw = rig.post("/embed").header("content-type", "image/png").body(encode_png()).send();
    let form = rig.post("/embed").multipart(Form::new().part("file", Part::bytes(encode_png()))).send();
    for response in [raw.await, form.await] {
        let (status, body) = read_json(response).await;
        assert_eq!(status, 200, "{body}");
        insta::allow_duplicates! {
            insta::assert_json_snapshot!(hide_model_and_backend(body), @r#"
            {
              "backend": "BACKEND",
              "duplicate": false,
              "embedding": [
                0.5,
                -1.25,
                3.0
              ],
              "model": "MODEL",
              "model_sha256": "CHECKSUM"
            }
            "#);
        }
    }
    assert_eq!(rig.bucket.names(), ["a/cat.png"], "a body is not stored");
    for duplicate in [false, true] {
        let request = json!({"gcs_path": "gs://local/a/cat.png", "something": "else"});
        let (status, body) = read_json(rig.post("/embed").json(&request).send().await).await;
        assert_eq!((status, &body["duplicate"]), (200, &json!(duplicate)), "{body}");
        assert_eq!(body["embedding"], json!([0.5, -1.25, 3.0]));
        assert_eq!(body["gcs_path"], "gs://local/a/cat.png");
    }
    assert_eq!(rig.classified_count(), 3);
    let record = rig.stored("a/cat.png.embedding.json").await.unwrap();
    assert_eq!(record["embedding"], json!([0.5, -1.25, 3.0]));
}

#[tokio::test]
async fn announced_image_gets_an_embedding_beside_it_and_one_result() {
    let rig = embedding_rig().await;
    let name = format!("{ID}/image.jpg");
    rig.store(&name, encode_png()).await;
    for status in ["ok", "duplicate"] {
        let (code, body) = read_json(rig.push_event(&name).send().await).await;
        assert_eq!((code, &body["status"]), (200, &json!(status)), "{body}");
        assert_eq!(body["gcs_path"], format!("gs://local/{name}"));
        for absent in ["label", "confidence", "embedding"] {
            assert_eq!(body.get(absent), None, "{body}");
        }
    }
    assert_eq!(rig.bucket.names(), [format!("{ID}/embedding.json"), name.clone()]);
    let record = rig.stored(&format!("{ID}/embedding.json")).await.unwrap();
    insta::assert_json_snapshot!(hide_model_and_backend(record.clone()), @r#"
    {
      "backend": "BACKEND",
      "embedding": [
        0.5,
        -1.25,
        3.0
      ],
      "gcs_path": "gs://local/0123456789abcdef0123456789abcdef/image.jpg",
      "model": "MODEL",
      "model_sha256": "CHECKSUM"
    }
    "#);
    let messages = rig.results.messages();
    assert_eq!(messages.len(), 1);
    let message: ResultMessage = serde_json::from_slice(&messages[0].data).unwrap();
    assert_eq!(message.id.unwrap().as_str(), ID);
    assert_eq!(serde_json::to_value(message.record).unwrap(), record);
}

#[tokio::test]
async fn models_of_both_kinds_each_record_an_image_once_in_any_order() {
    let models =
        [("flowers", "0a", true), ("dino", "0b", false), ("dino", "0c", false), ("roses", "0d", true)];
    for order in [[0, 1, 2, 3], [1, 0, 3, 2]] {
        let bucket = Arc::new(TestBucket::default());
        let image = format!("{ID}/image.jpg");
        bucket.replace(&image, encode_png());
        let mut rigs = Vec::new();
        for (name, digits, is_classifier) in order.map(|index| models[index]) {
            let (bucket, model) = (Arc::clone(&bucket), ModelId::new(name, digits.repeat(32)));
            let rig = if is_classifier {
                Rig::with_model_on(bucket, model.clone(), Settings::default()).await
            } else {
                Rig::with_head_of_model_on(bucket, model.clone(), EMBEDDING, &[0.5, -1.25, 3.0]).await
            };
            let (_, body) = read_json(rig.push_event(&image).send().await).await;
            assert_eq!(body["status"], "ok", "{body}");
            rigs.push((rig, model));
        }
        let names = bucket.names();
        let records = ["embedding.dino-0c0c0c0c", "embedding", "prediction.roses-0d0d0d0d", "prediction"]
            .map(|name| format!("{ID}/{name}.json"));
        let mut expected = [records.as_slice(), std::slice::from_ref(&image)].concat();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for (rig, model) in &rigs {
            let (_, body) = read_json(rig.push_event(&image).send().await).await;
            assert_eq!(body["status"], "duplicate", "{body}");
            let messages = rig.results.messages();
            assert_eq!(messages.len(), 1);
            let result: Value = serde_json::from_slice(&messages[0].data).unwrap();
            assert_eq!([&result["model"], &result["model_sha256"]], [model.name(), model.sha256()]);
        }
        for (name, sha256) in
            [(&records[0], "0c"), (&records[1], "0b"), (&records[2], "0d"), (&records[3], "0a")]
        {
            assert_eq!(rigs[0].0.stored(name).await.unwrap()["model_sha256"], sha256.repeat(32), "{name}");
            let (_, body) = read_json(rigs[0].0.push_event(name).send().await).await;
            assert_eq!(body["reason"], "our_prediction", "{body}");
        }
        assert_eq!(bucket.names(), names);
    }
}

#[tokio::test]
async fn embedding_of_another_model_is_not_the_answer_to_a_request() {
    let bucket = Arc::new(TestBucket::default());
    bucket.replace("cat.png", encode_png());
    for (digits, outputs) in [("0a", [0.5, -1.25, 3.0]), ("0b", [1.5, 2.0, -3.0])] {
        let model = ModelId::new("dino", digits.repeat(32));
        let rig = Rig::with_head_of_model_on(Arc::clone(&bucket), model, EMBEDDING, &outputs).await;
        for duplicate in [false, true] {
            let request = json!({"gcs_path": "gs://local/cat.png"});
            let (_, body) = read_json(rig.post("/embed").json(&request).send().await).await;
            let expected = json!([duplicate, outputs, digits.repeat(32)]);
            assert_eq!(json!([body["duplicate"], body["embedding"], body["model_sha256"]]), expected);
        }
    }
    let names = ["cat.png", "cat.png.embedding.dino-0b0b0b0b.json", "cat.png.embedding.json"];
    assert_eq!(bucket.names(), names);
}

#[tokio::test]
async fn record_of_an_embedding_is_neither_announced_nor_confused_with_a_prediction() {
    let rig = embedding_rig().await;
    rig.store("cat.png", encode_png()).await;
    let prediction = json!({"label": "cat", "confidence": 0.5, "top": [], "model": "other", "backend": "b"});
    rig.store("cat.png.prediction.json", prediction.to_string()).await;
    assert_eq!(read_json(rig.push_event("cat.png").send().await).await.1["status"], "ok");
    assert_eq!(rig.stored("cat.png.prediction.json").await.unwrap(), prediction);
    let (_, body) = read_json(rig.push_event("cat.png.embedding.json").send().await).await;
    assert_eq!((&body["status"], &body["reason"]), (&json!("ignored"), &json!("our_prediction")));
}

#[tokio::test]
async fn image_that_can_never_be_embedded_gets_a_failure_as_its_embedding() {
    let rig = embedding_rig().await;
    rig.store("text", "hello").await;
    let (_, body) = read_json(rig.push_event("text").send().await).await;
    assert_eq!((&body["status"], &body["reason"]), (&json!("dead"), &json!("not_an_image")));
    assert_eq!(rig.stored("text.embedding.json").await.unwrap()["error"]["reason"], "not_an_image");
}

#[tokio::test]
async fn route_of_the_other_kind_of_model_is_refused_with_the_right_route() {
    let (embedding, classifier) = (embedding_rig().await, Rig::with_espresso_engine().await);
    for (rig, route, kind, right_route) in [
        (&embedding, "/classify", "no_labels", "POST /embed"),
        (&classifier, "/embed", "no_embedding", "POST /classify"),
    ] {
        let post = |body: Vec<u8>| rig.post(route).header("content-type", "image/png").body(body).send();
        // The second body is longer than the buffers of the connection, so the service must drain it.
        for body in [encode_png(), vec![1; 4 << 20]] {
            assert_eq!(read_problem(post(body).await).await, (404, kind.to_owned()));
        }
        let (_, body) = read_json(post(encode_png()).await).await;
        assert!(body["detail"].as_str().unwrap().contains(right_route), "{body}");
        let (_, index) = read_json(rig.get("/").send().await).await;
        assert!(
            index["routes"].get(right_route).is_some()
                && index["routes"].get(format!("POST {route}")).is_none()
        );
    }
}

#[tokio::test]
async fn multilabel_model_answers_every_label_above_the_threshold() {
    let rig = Rig::with_head(MULTILABEL, &[0.75, 0.125, 0.5, 0.25]).await;
    rig.store("cat.png", encode_png()).await;
    let (_, body) = read_json(rig.post_image(encode_png()).send().await).await;
    assert_eq!(top_labels(&body), ["cat", "bird"]);
    assert_eq!((&body["label"], &body["confidence"]), (&json!("cat"), &json!(0.75)));
    assert_eq!(body["top"][1]["confidence"], 0.5);
    let (_, body) = read_json(rig.post_image_with_query("threshold=0.2").send().await).await;
    assert_eq!(top_labels(&body), ["cat", "bird", "fish"]);
    let (_, body) = read_json(rig.post_image_with_query("threshold=0.9").send().await).await;
    assert_eq!((top_labels(&body), &body["label"]), (vec![], &json!("cat")));

    // A record lists the classes above the threshold of the model.
    let request = |extra: Value| {
        let mut body = json!({"gcs_path": "gs://local/cat.png"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        rig.post("/classify").json(&body).send()
    };
    for (extra, duplicate, labels) in [
        (json!({}), false, vec!["cat", "bird"]),
        (json!({}), true, vec!["cat", "bird"]),
        (json!({"threshold": 0.6}), true, vec!["cat"]),
        (json!({"threshold": 0.2}), false, vec!["cat", "bird", "fish"]),
    ] {
        let (_, body) = read_json(request(extra).await).await;
        assert_eq!((&body["duplicate"], top_labels(&body)), (&json!(duplicate), labels), "{body}");
    }
    let record = rig.stored("cat.png.prediction.json").await.unwrap();
    assert_eq!(top_labels(&record), ["cat", "bird"]);
}

#[tokio::test]
async fn binary_model_answers_with_the_probability_of_the_answered_label() {
    for (output, label, confidence) in [(0.75, "cat", 0.75), (0.125, "no cat", 0.875)] {
        let rig = Rig::with_head(BINARY, &[output]).await;
        let (_, body) = read_json(rig.post_image(encode_png()).send().await).await;
        assert_eq!((&body["label"], &body["confidence"]), (&json!(label), &json!(confidence)), "{body}");
        assert_eq!(body["top"].as_array().unwrap().len(), 2, "{body}");
        let problem = read_problem(rig.post_image_with_query("top_k=3").send().await).await;
        assert_eq!(problem, (422, "bad_top_k".to_owned()));
    }
}
