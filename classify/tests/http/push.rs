//! Tests of `POST /pubsub`.
//!
//! An event is a delivered announcement. The tests cover every [`Outcome`] of an event, and repeated
//! deliveries of an event.

use classify::{
    Settings,
    announcements::{Action, DeadReason, IgnoreReason, Outcome},
};
use futures_util::future::{Either, select};
use serde_json::{Value, json};

use crate::rig::{Gate, Rig, Verdict, build_notification, encode_png, hide_model_and_backend, read_json};

/// Name of the announced object.
const OBJECT: &str = "x/image.png";
/// Name of the object that holds the prediction of [`OBJECT`].
const PREDICTION: &str = "x/image.png.prediction.json";

/// Starts a service and pushes an event that is handled with the outcome `outcome`.
///
/// Returns the service with the gate of its engine, and the status and body of the response to the push.
async fn provoke(outcome: Outcome) -> ((Rig, Gate), u16, Value) {
    let (engine, mut gate) = Gate::new(outcome == Outcome::NotReady);
    let mut settings = Settings::default();
    // The image of `encode_png` has 64 pixels and is longer than ten bytes.
    match outcome {
        Outcome::Overloaded => settings.queue_items = std::num::NonZeroUsize::MIN,
        Outcome::Dead(DeadReason::TooLarge) => settings.max_pixels = 63,
        Outcome::Dead(DeadReason::EventTooLarge) => settings.max_event_bytes = 1000,
        Outcome::Ignored(IgnoreReason::TooLarge) => settings.max_image_bytes = 10,
        Outcome::Ignored(IgnoreReason::OtherPrefix) => settings.prefix = "photos/".to_owned(),
        _ => {}
    }
    let rig = if outcome == Outcome::NotReady {
        Rig::start_without_waiting(settings, vec![engine]).await
    } else {
        Rig::with_engines(settings, vec![engine]).await
    };
    match outcome {
        Outcome::Dead(DeadReason::NoSuchObject) => {}
        Outcome::Dead(DeadReason::NotAnImage) | Outcome::Ignored(IgnoreReason::NotAnImage) => {
            rig.store(OBJECT, "hello").await;
        }
        Outcome::Dead(DeadReason::UnsupportedFormat) => rig.store(OBJECT, "GIF89a\x01\0\x01\0\0\0\0").await,
        Outcome::Dead(DeadReason::FailedRepeatedly) => {
            // The topic has given up, and its handler has recorded the failure.
            rig.store(OBJECT, encode_png()).await;
            let error = json!({ "reason": "failed_repeatedly", "message": "20 attempts" });
            let record = json!({ "gcs_path": format!("gs://local/{OBJECT}"), "error": error });
            rig.store(PREDICTION, record.to_string()).await;
        }
        _ => rig.store(OBJECT, encode_png()).await,
    }
    let request = match outcome {
        Outcome::Dead(DeadReason::BadJson) => rig.push("not JSON"),
        Outcome::Dead(DeadReason::BadBase64) => rig.push_raw(r#"{"message":{"data":"*","messageId":"1"}}"#),
        Outcome::Dead(DeadReason::BadPath) => rig.push(json!({"gcs_path": OBJECT}).to_string()),
        Outcome::Dead(DeadReason::WrongBucket) => {
            rig.push(json!({"gcs_path": format!("gs://other/{OBJECT}")}).to_string())
        }
        Outcome::Dead(DeadReason::EventTooLarge) => {
            rig.push(json!({"gcs_path": format!("gs://local/{OBJECT}"), "x": "x".repeat(1000)}).to_string())
        }
        Outcome::Ignored(IgnoreReason::OurPrediction) => rig.push_event(PREDICTION),
        Outcome::Ignored(IgnoreReason::Folder) => rig.push_event("x/"),
        Outcome::Ignored(IgnoreReason::OtherEvent) => {
            rig.push_delivery(&build_notification("OBJECT_DELETE", OBJECT, 1, "image/png"))
        }
        Outcome::Ignored(IgnoreReason::TooLarge) => {
            rig.push_delivery(&build_notification("OBJECT_FINALIZE", OBJECT, 1, "application/octet-stream"))
        }
        Outcome::Ignored(_) => rig.push_notification(OBJECT, 1),
        _ => rig.push_event(OBJECT),
    };
    match outcome {
        Outcome::Accepted => gate.release(Verdict::Espresso),
        Outcome::Duplicate => {
            gate.release(Verdict::Espresso);
            assert_eq!(read_json(rig.push_event(OBJECT).send().await).await.0, 200);
        }
        Outcome::Transient => rig.bucket.set_down(true),
        Outcome::ModelFailure => gate.release(Verdict::Nan),
        Outcome::Draining => rig.readiness.set_draining(),
        Outcome::NotReady => assert_eq!(gate.next_batch().await, 1),
        _ => {}
    }
    let response = if outcome == Outcome::Overloaded {
        for object in ["busy", "waiting"] {
            rig.store(object, encode_png()).await;
        }
        let _busy = tokio::spawn(rig.push_event("busy").send());
        gate.next_batch().await;
        // One of these two pushes waits in the queue. The other push finds the queue full.
        match select(Box::pin(request.send()), Box::pin(rig.push_event("waiting").send())).await {
            Either::Left((first, _)) | Either::Right((first, _)) => first,
        }
    } else {
        request.send().await
    };
    let has_retry_after = response.as_ref().unwrap().headers().contains_key("retry-after");
    let (status, body) = read_json(response).await;
    assert_eq!(has_retry_after, matches!(status, 429 | 503), "{outcome:?}: Retry-After with {status}");
    ((rig, gate), status, body)
}

#[tokio::test]
async fn every_outcome_is_answered_recorded_and_counted_as_in_the_table() {
    for outcome in Outcome::ALL {
        let handling = outcome.handling();
        let ((rig, _gate), status, body) = provoke(outcome).await;
        let expected_status = match outcome {
            Outcome::Overloaded => 429,
            Outcome::Transient | Outcome::NotReady | Outcome::Draining => 503,
            Outcome::ModelFailure => 500,
            Outcome::Accepted | Outcome::Duplicate | Outcome::Ignored(_) | Outcome::Dead(_) => 200,
        };
        assert_eq!(status, expected_status, "{outcome:?}: {body}");
        assert_eq!(status == 200, handling.is_acknowledged(), "{outcome:?}");
        if handling.is_acknowledged() {
            assert_eq!(body["status"], handling.label, "{outcome:?}: {body}");
            assert_eq!(
                body.get("reason").map_or("", |reason| reason.as_str().unwrap()),
                handling.reason,
                "{outcome:?}"
            );
        } else {
            assert!(body["kind"].is_string(), "{outcome:?}: {body}");
        }
        let record = rig.stored(PREDICTION).await;
        let predicted = matches!(outcome, Outcome::Accepted | Outcome::Duplicate);
        let failure_recorded = handling.action == Action::RecordAndAcknowledge;
        assert_eq!(record.is_some(), predicted || failure_recorded, "{outcome:?}: {record:?}");
        if failure_recorded {
            let record = record.unwrap();
            assert_eq!(record["error"]["reason"], handling.reason, "{outcome:?}");
            assert_eq!(record["gcs_path"], format!("gs://local/{OBJECT}"), "{outcome:?}");
            // The same event, delivered again, is answered from the record.
            let repeated = read_json(rig.push_event(OBJECT).send().await).await;
            assert_eq!(repeated, (status, body), "{outcome:?}");
        }
        let metrics = rig.get("/metrics").send().await.unwrap().text().await.unwrap();
        let is_counted = metrics.lines().any(|line| {
            line.starts_with("classify_events_total{")
                && line.contains(&format!("outcome=\"{}\"", handling.label))
                && line.contains(&format!("reason=\"{}\"", handling.reason))
        });
        assert!(is_counted, "{outcome:?} is not counted in {metrics}");
    }
}

#[tokio::test]
async fn responses_and_records_match_their_snapshots() {
    let rig = Rig::with_espresso_engine().await;
    rig.store(OBJECT, encode_png()).await;
    let (_, body) = read_json(rig.push_event(OBJECT).send().await).await;
    insta::assert_json_snapshot!(hide_model_and_backend(body), @r#"
    {
      "confidence": 0.95661324,
      "duplicate": false,
      "gcs_path": "gs://local/x/image.png",
      "label": "espresso",
      "model": "MODEL",
      "status": "ok"
    }
    "#);
    let (_, body) = read_json(rig.push_event(OBJECT).send().await).await;
    insta::assert_json_snapshot!(hide_model_and_backend(body), @r#"
    {
      "confidence": 0.95661324,
      "duplicate": true,
      "gcs_path": "gs://local/x/image.png",
      "label": "espresso",
      "model": "MODEL",
      "status": "duplicate"
    }
    "#);
    let (_, body) = read_json(rig.push_event("x/image.png.prediction.json").send().await).await;
    insta::assert_json_snapshot!(body, @r#"
    {
      "gcs_path": "gs://local/x/image.png.prediction.json",
      "message": "gs://local/x/image.png.prediction.json is a prediction",
      "reason": "our_prediction",
      "status": "ignored"
    }
    "#);
    let (_, body) = read_json(rig.push_event("nothing").send().await).await;
    insta::assert_json_snapshot!(body, @r#"
    {
      "gcs_path": "gs://local/nothing",
      "message": "no such object: gs://local/nothing",
      "reason": "no_such_object",
      "status": "dead"
    }
    "#);
    rig.store("text", "hello").await;
    assert_eq!(read_json(rig.push_event("text").send().await).await.0, 200);
    insta::assert_json_snapshot!(rig.stored("text.prediction.json").await, @r#"
    {
      "error": {
        "message": "the bytes are not a readable image",
        "reason": "not_an_image"
      },
      "gcs_path": "gs://local/text"
    }
    "#);
}

#[tokio::test]
async fn prediction_of_a_preprocessed_image_is_stored_beside_the_image() {
    let rig = Rig::with_espresso_engine().await;
    let id = "0123456789abcdef0123456789abcdef";
    rig.store(&format!("{id}/image.jpg"), encode_png()).await;
    let unwrapped =
        json!({"gcs_path": format!("gs://local/{id}/image.jpg"), "id": id, "width": 8, "height": 8});
    let (status, body) = read_json(rig.push_raw(unwrapped.to_string()).send().await).await;
    assert_eq!((status, &body["status"]), (200, &json!("ok")), "{body}");
    let record = rig.stored(&format!("{id}/prediction.json")).await.unwrap();
    assert_eq!((&record["label"], &record["gcs_path"]), (&body["label"], &body["gcs_path"]));
}

#[tokio::test]
async fn event_delivered_several_times_at_once_is_classified_once() {
    let (engine, mut gate) = Gate::new(false);
    let rig = Rig::with_engines(Settings::default(), vec![engine]).await;
    rig.store(OBJECT, encode_png()).await;
    let mut pushes = vec![tokio::spawn(rig.push_event(OBJECT).send())];
    gate.next_batch().await;
    // The engine is still running the image of the first push while the other pushes arrive.
    for _ in 0..3 {
        pushes.push(tokio::spawn(rig.push_event(OBJECT).send()));
        pushes.push(tokio::spawn(rig.push_notification(OBJECT, 1).send()));
    }
    gate.release(Verdict::Espresso);
    let mut statuses = Vec::new();
    for push in pushes {
        statuses.push(read_json(push.await.unwrap()).await.1["status"].as_str().unwrap().to_owned());
    }
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        ["duplicate", "duplicate", "duplicate", "duplicate", "duplicate", "duplicate", "ok"]
    );
    assert_eq!(gate.count_further_batches(), 0, "the network ran once");
}

#[tokio::test]
async fn dead_event_is_refused_until_the_failure_is_recorded() {
    let rig = Rig::with_espresso_engine().await;
    rig.store(OBJECT, "hello").await;
    rig.bucket.set_down(true);
    assert_eq!(read_json(rig.push_event(OBJECT).send().await).await.0, 503);
    rig.bucket.set_down(false);
    assert_eq!(read_json(rig.push_event(OBJECT).send().await).await.1["reason"], "not_an_image");
}

#[tokio::test]
async fn event_whose_prediction_record_is_unreadable_is_acknowledged() {
    let rig = Rig::with_espresso_engine().await;
    rig.store(OBJECT, encode_png()).await;
    rig.store(PREDICTION, r#"{"neither":"nor"}"#).await;
    let (status, body) = read_json(rig.push_event(OBJECT).send().await).await;
    assert_eq!((status, &body["status"]), (200, &json!("ok")), "{body}");
}

#[tokio::test]
async fn event_whose_prediction_would_have_too_long_a_name_is_dead() {
    let rig = Rig::with_espresso_engine().await;
    // The bucket accepts this name, but with the suffix of the prediction the name is too long.
    let name = "n".repeat(250);
    rig.store(&name, encode_png()).await;
    let (status, body) = read_json(rig.push_event(&name).send().await).await;
    assert_eq!((status, &body["reason"]), (200, &json!("bad_path")), "{body}");
}

/// Returns an array of many small objects, with at least `byte_count` bytes. As a `Value` it would need a
/// hundred times as much memory.
fn bomb(byte_count: usize) -> String {
    let element = r#"{"":0}"#;
    format!("[{element}{}]", format!(",{element}").repeat(byte_count / (element.len() + 1)))
}

#[tokio::test]
async fn event_above_the_limit_is_acknowledged_unread_and_the_largest_below_it_is_classified() {
    let (engine, gate) = Gate::new(false);
    let settings = Settings::default();
    let limit = settings.max_event_bytes;
    let rig = Rig::with_engines(settings, vec![engine]).await;
    rig.store(OBJECT, encode_png()).await;
    let event_with = |byte_count: usize| {
        let start = format!(r#"{{"gcs_path":"gs://local/{OBJECT}","x":""#);
        let filler = "x".repeat(byte_count - start.len() - 2);
        format!("{start}{filler}\"}}")
    };
    for body in [event_with(limit + 1), bomb(limit + 1), bomb(4 << 20)] {
        let (status, body) = read_json(rig.push_raw(body).send().await).await;
        assert_eq!(
            (status, &body["status"], &body["reason"]),
            (200, &json!("dead"), &json!("event_too_large"))
        );
        assert!(body.to_string().len() < 300, "{body}");
    }
    assert!(rig.bucket.names() == [OBJECT], "nothing is recorded without a path");
    gate.release(Verdict::Espresso);
    let (status, body) = read_json(rig.push_raw(event_with(limit)).send().await).await;
    assert_eq!((status, &body["status"]), (200, &json!("ok")), "{body}");
}

#[tokio::test]
async fn path_of_an_event_is_repeated_only_if_it_can_be_a_path() {
    let rig = Rig::with_espresso_engine().await;
    let name = format!("{}.prediction.json", "n".repeat(10_000));
    let (status, body) = read_json(rig.push_event(&name).send().await).await;
    assert_eq!((status, &body["reason"]), (200, &json!("bad_path")));
    assert!(body.to_string().len() < 300, "{body}");
}
