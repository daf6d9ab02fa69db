//! Tests of announcements whose image or record is damaged.

use platform::bucket::{Bucket, Created, ObjectName};
use serde_json::json;

use crate::rig::{ESPRESSO, Rig, TestBucket, encode_png, read_json, read_problem, read_sample};

/// Object names of a preprocessed image and of its prediction.
const IMAGE: &str = "0123456789abcdef0123456789abcdef/image.jpg";
const PREDICTION: &str = "0123456789abcdef0123456789abcdef/prediction.json";

/// Announces [`IMAGE`], and returns the member `status` of the response.
async fn push_status(rig: &Rig) -> String {
    let (code, body) = read_json(rig.push_event(IMAGE).send().await).await;
    assert_eq!(code, 200, "{body}");
    body["status"].as_str().unwrap().to_owned()
}

async fn assert_espresso_is_stored(rig: &Rig) {
    let record = rig.stored(PREDICTION).await.unwrap();
    assert_eq!(record["top"][0]["index"], ESPRESSO, "{record}");
}

#[tokio::test]
async fn event_of_a_damaged_image_is_refused_until_the_image_is_uploaded_again() {
    let photo = read_sample("coffee.jpg");
    let cut = photo[..photo.len() / 2].to_vec();
    let zeroed = vec![0; photo.len()];
    // Without a checksum, damage is visible only in the content.
    for (kind, unchecked) in [("checked", None), ("cut", Some(cut)), ("zeroed", Some(zeroed))] {
        let rig = Rig::with_espresso_engine().await;
        rig.store(IMAGE, photo.clone()).await;
        match unchecked {
            None => rig.bucket.damage(IMAGE),
            Some(content) => drop(rig.bucket.replace(IMAGE, content)),
        }
        for _ in 0..2 {
            let problem = read_problem(rig.push_event(IMAGE).send().await).await;
            assert_eq!(problem, (503, "damaged_image".to_owned()), "{kind}");
        }
        assert_eq!(rig.bucket.names(), [IMAGE], "{kind}: the damage is not recorded as a failure");

        let (name, looks_intact) = (ObjectName::new(IMAGE).unwrap(), contract::stored_image_looks_intact);
        let upload = rig.bucket.replace_if_broken(&name, photo.clone().into(), "image/jpeg", looks_intact);
        assert_eq!(upload.await.unwrap(), Created::Replaced, "{kind}");
        assert_eq!(push_status(&rig).await, "ok", "{kind}");
        assert_espresso_is_stored(&rig).await;
        assert_eq!(push_status(&rig).await, "duplicate", "{kind}");
    }
}

#[tokio::test]
async fn damaged_record_is_replaced_by_a_new_one_which_is_published() {
    let rig = Rig::with_espresso_engine().await;
    rig.store(IMAGE, encode_png()).await;
    assert_eq!(push_status(&rig).await, "ok");
    let record = rig.stored(PREDICTION).await.unwrap().to_string();
    let cut = record[..record.len() - 1].to_owned();
    let zeroed = "\0".repeat(record.len());
    let without_checksum = [cut, zeroed, String::new(), r#"{"neither":"nor"}"#.to_owned()];
    for (count, content) in std::iter::once(None).chain(without_checksum.map(Some)).enumerate() {
        match &content {
            None => rig.bucket.damage(PREDICTION),
            Some(content) => drop(rig.bucket.replace(PREDICTION, content.clone())),
        }
        assert_eq!(push_status(&rig).await, "ok", "{content:?}");
        assert_espresso_is_stored(&rig).await;
        assert_eq!(rig.results.messages().len(), count + 2, "{content:?}");
        assert_eq!(push_status(&rig).await, "duplicate", "{content:?}");
    }
}

#[tokio::test]
async fn record_of_another_version_is_kept_and_nothing_is_published() {
    let rig = Rig::with_espresso_engine().await;
    rig.store(IMAGE, encode_png()).await;
    let newer = json!({
        "gcs_path": format!("gs://local/{IMAGE}"),
        "error": { "reason": "reason_of_a_newer_version", "message": "" },
    });
    rig.bucket.replace(PREDICTION, newer.to_string());
    assert_eq!(push_status(&rig).await, "ok");
    assert_eq!(rig.stored(PREDICTION).await.unwrap(), newer);
    assert!(rig.results.messages().is_empty());
}

#[tokio::test]
async fn damaged_record_stays_in_a_bucket_that_replaces_nothing_and_nothing_is_published() {
    let bucket = TestBucket::with_generations();
    let rig = Rig::with_espresso_engine_on(bucket, classify::Settings::default()).await;
    rig.store(IMAGE, encode_png()).await;
    rig.store(PREDICTION, r#"{"neither":"nor"}"#).await;
    for _ in 0..2 {
        assert_eq!(push_status(&rig).await, "ok");
    }
    assert_eq!(rig.stored(PREDICTION).await.unwrap(), json!({ "neither": "nor" }));
    assert!(rig.results.messages().is_empty());
}
