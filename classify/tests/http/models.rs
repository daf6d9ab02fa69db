//! Tests of several models that classify the images of one bucket, one after the other or at the same time.

use std::sync::Arc;

use classify::Settings;
use contract::ModelId;
use platform::topic::InMemoryTopic;
use serde_json::{Value, json};

use crate::rig::{Gate, Rig, TestBucket, Verdict, encode_png, read_json};

const IMAGE: &str = "0123456789abcdef0123456789abcdef/image.jpg";
/// Record of the first model.
const FIRST: &str = "0123456789abcdef0123456789abcdef/prediction.json";
/// Record of [`retrained`] if another model was the first one.
const RETRAINED: &str = "0123456789abcdef0123456789abcdef/prediction.flowers-0b0b0b0b.json";

/// Returns the first model.
fn flowers() -> ModelId {
    ModelId::new("flowers", "0a".repeat(32))
}

/// Returns a model with the name of [`flowers`] and another file.
fn retrained() -> ModelId {
    ModelId::new("flowers", "0b".repeat(32))
}

/// Returns a model with another name and the file of [`flowers`].
fn renamed() -> ModelId {
    ModelId::new("blossoms", "0a".repeat(32))
}

async fn start(bucket: &Arc<TestBucket>, model: ModelId) -> Rig {
    Rig::with_model_on(Arc::clone(bucket), model, Settings::default()).await
}

/// Announces the object `name`, and returns the member `status` of the response.
async fn push_status(rig: &Rig, name: &str) -> String {
    let (code, body) = read_json(rig.push_event(name).send().await).await;
    assert_eq!(code, 200, "{body}");
    body["status"].as_str().unwrap().to_owned()
}

/// Returns the member `model_sha256` of every published result.
fn published_checksums(results: &InMemoryTopic) -> Vec<Value> {
    let parse = |data: &[u8]| serde_json::from_slice::<Value>(data).unwrap()["model_sha256"].clone();
    results.messages().iter().map(|message| parse(&message.data)).collect()
}

#[tokio::test]
async fn each_model_classifies_an_image_once_and_stores_its_record_beside_the_others() {
    let bucket = Arc::new(TestBucket::default());
    let models = [flowers(), retrained(), renamed()];
    let mut rigs = Vec::new();
    for model in &models {
        rigs.push(start(&bucket, model.clone()).await);
    }
    rigs[0].store(IMAGE, encode_png()).await;
    for rig in &rigs {
        for expected in ["ok", "duplicate", "duplicate"] {
            assert_eq!(push_status(rig, IMAGE).await, expected);
        }
    }
    let folder = IMAGE.strip_suffix("image.jpg").unwrap();
    let names = ["image.jpg", "prediction.blossoms-0a0a0a0a.json", "prediction.flowers-0b0b0b0b.json"]
        .map(|name| format!("{folder}{name}"));
    assert_eq!(bucket.names(), [names.as_slice(), &[FIRST.to_owned()]].concat());
    let records = [FIRST, RETRAINED, &names[1]];
    for ((rig, model), name) in rigs.iter().zip(&models).zip(records) {
        // The records of later models change nothing for the earlier ones.
        assert_eq!(push_status(rig, IMAGE).await, "duplicate");
        let record = rig.stored(name).await.unwrap();
        assert_eq!(
            (&record["model"], &record["model_sha256"]),
            (&json!(model.name()), &json!(model.sha256()))
        );
        assert_eq!(published_checksums(&rig.results), [json!(model.sha256())]);
        assert_eq!(rig.classified_count(), 1);
    }
}

#[tokio::test]
async fn every_version_of_another_object_gets_a_record_of_each_model() {
    let bucket = Arc::new(TestBucket::with_generations());
    let (first, second) = (start(&bucket, flowers()).await, start(&bucket, retrained()).await);
    for generation in [1, 2] {
        bucket.replace("cat.png", encode_png());
        for rig in [&first, &second] {
            for expected in ["ok", "duplicate"] {
                let (_, body) = read_json(rig.push_notification("cat.png", generation).send().await).await;
                assert_eq!(body["status"], expected, "{body}");
            }
        }
    }
    assert_eq!(
        bucket.names(),
        [
            "cat.png",
            "cat.png.1.prediction.flowers-0b0b0b0b.json",
            "cat.png.1.prediction.json",
            "cat.png.2.prediction.flowers-0b0b0b0b.json",
            "cat.png.2.prediction.json",
        ]
    );
}

#[tokio::test]
async fn notifications_of_the_records_of_every_model_are_ignored() {
    let bucket = Arc::new(TestBucket::with_generations());
    let rig = start(&bucket, flowers()).await;
    for name in [FIRST, RETRAINED, "cat.png.1.prediction.flowers-0b0b0b0b.json"] {
        let (code, body) = read_json(rig.push_notification(name, 1).send().await).await;
        let expected = json!(["ignored", "our_prediction"]);
        assert_eq!((code, json!([body["status"], body["reason"]])), (200, expected), "{body}");
    }
}

#[tokio::test]
async fn first_model_reads_no_more_objects_than_the_image_and_a_record_and_later_models_read_one_more() {
    let bucket = Arc::new(TestBucket::default());
    let (first, second) = (start(&bucket, flowers()).await, start(&bucket, retrained()).await);
    first.store(IMAGE, encode_png()).await;
    for (rig, [classified, duplicate]) in [(&first, [2, 1]), (&second, [3, 2]), (&first, [1, 1])] {
        for expected in [classified, duplicate] {
            let count_before = bucket.read_count();
            push_status(rig, IMAGE).await;
            assert_eq!(bucket.read_count() - count_before, expected);
        }
    }
}

#[tokio::test]
async fn record_without_a_checksum_counts_for_every_model_of_its_name() {
    let old_record = json!({"gcs_path": format!("gs://local/{IMAGE}"), "label": "rose", "confidence": 0.5,
        "top": [{"label": "rose", "index": 1, "confidence": 0.5}], "model": "flowers", "backend": "flex"});
    for (model, expected) in [(flowers(), "duplicate"), (retrained(), "duplicate"), (renamed(), "ok")] {
        let bucket = Arc::new(TestBucket::default());
        let rig = start(&bucket, model).await;
        rig.store(IMAGE, encode_png()).await;
        rig.store(FIRST, old_record.to_string()).await;
        assert_eq!(push_status(&rig, IMAGE).await, expected);
        assert_eq!(rig.stored(FIRST).await.unwrap(), old_record);
    }
}

#[tokio::test]
async fn failure_counts_for_the_model_that_failed_and_failure_of_the_image_for_every_model() {
    let failure = |reason: &str| json!({"gcs_path": format!("gs://local/{IMAGE}"), "error": {"reason": reason, "message": "m"}});
    let mut named = failure("failed_repeatedly");
    named["model"] = json!("flowers");
    named["model_sha256"] = json!("0a".repeat(32));
    for (record, model, expected) in [
        (&named, flowers(), "dead"),
        (&named, retrained(), "ok"),
        // Older versions did not name the model.
        (&failure("failed_repeatedly"), retrained(), "dead"),
        (&failure("too_large"), retrained(), "dead"),
        (&failure("not_an_image"), renamed(), "dead"),
    ] {
        let bucket = Arc::new(TestBucket::default());
        let rig = start(&bucket, model).await;
        rig.store(IMAGE, encode_png()).await;
        rig.store(FIRST, record.to_string()).await;
        assert_eq!(push_status(&rig, IMAGE).await, expected, "{record}");
        assert_eq!(rig.stored(FIRST).await.as_ref(), Some(record));
    }
    let bucket = Arc::new(TestBucket::default());
    let (first, second) = (start(&bucket, flowers()).await, start(&bucket, retrained()).await);
    first.store(IMAGE, "text").await;
    for rig in [&first, &second] {
        assert_eq!(push_status(rig, IMAGE).await, "dead");
    }
    assert_eq!(bucket.names(), [IMAGE, FIRST], "a failure of the image is recorded once");
    assert!(second.results.messages().is_empty());
}

#[tokio::test]
async fn damaged_record_of_either_name_is_replaced_unless_the_model_has_an_intact_one() {
    let bucket = Arc::new(TestBucket::default());
    let (first, second) = (start(&bucket, flowers()).await, start(&bucket, retrained()).await);
    first.store(IMAGE, encode_png()).await;
    assert_eq!(push_status(&first, IMAGE).await, "ok");
    assert_eq!(push_status(&second, IMAGE).await, "ok");
    let first_record = first.stored(FIRST).await;
    bucket.damage(RETRAINED);
    assert_eq!(push_status(&second, IMAGE).await, "ok");
    assert_eq!(second.stored(RETRAINED).await.unwrap()["model_sha256"], json!("0b".repeat(32)));
    assert_eq!(first.stored(FIRST).await, first_record);
    assert_eq!(second.results.messages().len(), 2);
    bucket.damage(FIRST);
    assert_eq!(push_status(&second, IMAGE).await, "duplicate");
    assert_eq!(second.results.messages().len(), 2);
    // Nobody knows which model a damaged first record was of. The next model without a record takes its name.
    let third = start(&bucket, renamed()).await;
    assert_eq!(push_status(&third, IMAGE).await, "ok");
    assert_eq!(third.stored(FIRST).await.unwrap()["model"], "blossoms");
    assert_eq!(push_status(&second, IMAGE).await, "duplicate");
    assert_eq!(push_status(&first, IMAGE).await, "ok");
    let own = second.stored(&FIRST.replace(".json", ".flowers-0a0a0a0a.json")).await.unwrap();
    assert_eq!(own["model_sha256"], json!("0a".repeat(32)));
}

#[tokio::test]
async fn unreadable_record_is_kept_unless_it_names_another_model() {
    let newer = |model: Option<&str>| {
        let mut record = json!({"label": 1, "new_member": true});
        if let Some(model) = model {
            record["model"] = json!(model);
        }
        record.to_string()
    };
    for (model, expected_names) in [
        (None, [IMAGE, FIRST].as_slice()),
        (Some("flowers"), [IMAGE, FIRST].as_slice()),
        (Some("other"), [IMAGE, RETRAINED, FIRST].as_slice()),
    ] {
        let bucket = Arc::new(TestBucket::default());
        let rig = start(&bucket, retrained()).await;
        rig.store(IMAGE, encode_png()).await;
        rig.store(FIRST, newer(model)).await;
        assert_eq!(push_status(&rig, IMAGE).await, "ok");
        assert_eq!(bucket.names(), expected_names, "{model:?}");
        assert_eq!(rig.results.messages().len(), expected_names.len() - 2, "{model:?}");
    }
}

#[tokio::test]
async fn models_that_classify_an_image_at_the_same_time_both_store_and_publish_their_predictions() {
    let bucket = Arc::new(TestBucket::default());
    let (engine, mut gate) = Gate::new(false);
    let slow = Rig::with_engine_of_model_on(Arc::clone(&bucket), retrained(), engine).await;
    let fast = start(&bucket, flowers()).await;
    fast.store(IMAGE, encode_png()).await;
    let push = tokio::spawn(slow.push_event(IMAGE).send());
    // The slow model has found no record. The fast model stores the first record in the meantime.
    gate.next_batch().await;
    assert_eq!(push_status(&fast, IMAGE).await, "ok");
    gate.release(Verdict::Espresso);
    let (_, body) = read_json(push.await.unwrap()).await;
    assert_eq!(body["status"], "ok", "{body}");
    assert_eq!(fast.stored(FIRST).await.unwrap()["model_sha256"], json!("0a".repeat(32)));
    assert_eq!(slow.stored(RETRAINED).await.unwrap()["model_sha256"], json!("0b".repeat(32)));
    for rig in [&fast, &slow] {
        assert_eq!(push_status(rig, IMAGE).await, "duplicate");
        assert_eq!(rig.results.messages().len(), 1);
    }
}

#[tokio::test]
async fn instances_of_one_model_store_one_record_beside_the_record_of_another_model() {
    let bucket = Arc::new(TestBucket::default());
    let (engine, mut gate) = Gate::new(false);
    let first = start(&bucket, flowers()).await;
    let slow = Rig::with_engine_of_model_on(Arc::clone(&bucket), retrained(), engine).await;
    let fast = start(&bucket, retrained()).await;
    first.store(IMAGE, encode_png()).await;
    assert_eq!(push_status(&first, IMAGE).await, "ok");
    let push = tokio::spawn(slow.push_event(IMAGE).send());
    gate.next_batch().await;
    assert_eq!(push_status(&fast, IMAGE).await, "ok");
    gate.release(Verdict::Espresso);
    let (_, body) = read_json(push.await.unwrap()).await;
    assert_eq!(body["status"], "duplicate", "{body}");
    assert_eq!(bucket.names(), [IMAGE, RETRAINED, FIRST]);
}

#[tokio::test]
async fn redelivery_after_a_failed_store_repeats_the_prediction_of_the_new_model_only() {
    let bucket = Arc::new(TestBucket::default());
    let (first, second) = (start(&bucket, flowers()).await, start(&bucket, retrained()).await);
    first.store(IMAGE, encode_png()).await;
    assert_eq!(push_status(&first, IMAGE).await, "ok");
    // As after a crash, the result was published and not stored.
    bucket.set_full(true);
    assert_eq!(second.push_event(IMAGE).send().await.unwrap().status(), 503);
    bucket.set_full(false);
    assert_eq!(push_status(&second, IMAGE).await, "ok");
    assert_eq!(push_status(&second, IMAGE).await, "duplicate");
    let checksum = json!("0b".repeat(32));
    assert_eq!(published_checksums(&second.results), [checksum.clone(), checksum]);
    // A failed publication stores nothing.
    let third = start(&bucket, renamed()).await;
    third.results.fail_next(1);
    assert_eq!(third.push_event(IMAGE).send().await.unwrap().status(), 503);
    assert_eq!(bucket.names(), [IMAGE, RETRAINED, FIRST]);
    assert_eq!(push_status(&third, IMAGE).await, "ok");
    assert_eq!(third.results.messages().len(), 1);
}
