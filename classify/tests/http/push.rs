//! `POST /pubsub`: every row of the table of outcomes, and what happens when events come again.

use classify::{
    Settings,
    outcome::{Dead, Ignored, Outcome},
};
use futures_util::future::{Either, select};
use serde_json::{Value, json};

use crate::rig::{Gate, Rig, Verdict, anonymous, answer, notification, png};

/// Object that the walk's events are about, and where its prediction belongs.
const OBJECT: &str = "x/image.png";
const PREDICTION: &str = "x/image.png.prediction.json";

/// Makes `outcome` happen; gives the service with its gate, and the answer to the push that it happened
/// to.
async fn provoke(outcome: Outcome) -> ((Rig, Gate), u16, Value) {
    let (engine, mut gate) = Gate::new(outcome == Outcome::NotReady);
    let mut settings = Settings::default();
    match outcome {
        Outcome::Overloaded => settings.queue_items = std::num::NonZeroUsize::MIN,
        Outcome::Dead(Dead::TooLarge) => settings.max_pixels = 63,
        Outcome::Ignored(Ignored::TooLarge) => settings.max_image_bytes = 10,
        Outcome::Ignored(Ignored::OtherPrefix) => settings.prefix = "photos/".to_owned(),
        _ => {}
    }
    let rig = if outcome == Outcome::NotReady {
        Rig::starting(settings, vec![engine]).await
    } else {
        Rig::with(settings, vec![engine]).await
    };
    match outcome {
        Outcome::Dead(Dead::NoSuchObject) => {}
        Outcome::Dead(Dead::NotAnImage) | Outcome::Ignored(Ignored::NotAnImage) => {
            rig.store(OBJECT, "hello").await;
        }
        Outcome::Dead(Dead::UnsupportedFormat) => rig.store(OBJECT, "GIF89a\x01\0\x01\0\0\0\0").await,
        _ => rig.store(OBJECT, png()).await,
    }
    let request = match outcome {
        Outcome::Dead(Dead::BadJson) => rig.push("not JSON"),
        Outcome::Dead(Dead::BadBase64) => rig.push_raw(r#"{"message":{"data":"*","messageId":"1"}}"#),
        Outcome::Dead(Dead::BadPath) => rig.push(json!({"gcs_path": OBJECT}).to_string()),
        Outcome::Dead(Dead::WrongBucket) => {
            rig.push(json!({"gcs_path": format!("gs://other/{OBJECT}")}).to_string())
        }
        Outcome::Ignored(Ignored::OurPrediction) => rig.push_event(PREDICTION),
        Outcome::Ignored(Ignored::Folder) => rig.push_event("x/"),
        Outcome::Ignored(Ignored::OtherEvent) => {
            rig.push_delivery(&notification("OBJECT_DELETE", OBJECT, 1, "image/png"))
        }
        Outcome::Ignored(Ignored::TooLarge) => {
            rig.push_delivery(&notification("OBJECT_FINALIZE", OBJECT, 1, "application/octet-stream"))
        }
        Outcome::Ignored(_) => rig.push_notification(OBJECT, 1),
        _ => rig.push_event(OBJECT),
    };
    match outcome {
        Outcome::Accepted => gate.release(Verdict::Espresso),
        Outcome::Duplicate => {
            gate.release(Verdict::Espresso);
            assert_eq!(answer(rig.push_event(OBJECT).send().await).await.0, 200);
        }
        Outcome::Transient => rig.bucket.set_down(true),
        Outcome::ModelFailure => gate.release(Verdict::Nan),
        Outcome::Draining => rig.readiness.set_draining(),
        Outcome::NotReady => assert_eq!(gate.taken().await, 1),
        _ => {}
    }
    let response = if outcome == Outcome::Overloaded {
        for object in ["busy", "waiting"] {
            rig.store(object, png()).await;
        }
        let _busy = tokio::spawn(rig.push_event("busy").send());
        gate.taken().await;
        // One of these two has to wait in the queue, and the other one finds it full.
        match select(Box::pin(request.send()), Box::pin(rig.push_event("waiting").send())).await {
            Either::Left((first, _)) | Either::Right((first, _)) => first,
        }
    } else {
        request.send().await
    };
    let retry_after = response.as_ref().unwrap().headers().contains_key("retry-after");
    let (status, body) = answer(response).await;
    assert_eq!(retry_after, matches!(status, 429 | 503), "{outcome:?}: when to come back");
    ((rig, gate), status, body)
}

#[tokio::test]
async fn every_row_of_the_table_is_true() {
    for outcome in Outcome::ALL {
        let row = outcome.row();
        let ((rig, _gate), status, body) = provoke(outcome).await;
        assert_eq!(status, row.status.as_u16(), "{outcome:?}: {body}");
        if row.acknowledged() {
            assert_eq!(body["status"], row.word, "{outcome:?}: {body}");
            assert_eq!(
                body.get("reason").map_or("", |reason| reason.as_str().unwrap()),
                row.reason,
                "{outcome:?}"
            );
        } else {
            assert!(body["kind"].is_string(), "{outcome:?}: {body}");
        }
        let record = rig.stored(PREDICTION).await;
        let predicted = matches!(outcome, Outcome::Accepted | Outcome::Duplicate);
        assert_eq!(record.is_some(), predicted || row.recorded, "{outcome:?}: {record:?}");
        if row.recorded {
            let record = record.unwrap();
            assert_eq!(record["error"]["reason"], row.reason, "{outcome:?}");
            assert_eq!(record["gcs_path"], format!("gs://local/{OBJECT}"), "{outcome:?}");
            // It comes again, and is answered from the record.
            let again = answer(rig.push_event(OBJECT).send().await).await;
            assert_eq!(again, (status, body), "{outcome:?}");
        }
        let metrics = rig.get("/metrics").send().await.unwrap().text().await.unwrap();
        let counted = metrics.lines().any(|line| {
            line.starts_with("classify_events_total{")
                && line.contains(&format!("outcome=\"{}\"", row.word))
                && line.contains(&format!("reason=\"{}\"", row.reason))
        });
        assert!(counted, "{outcome:?} is not counted in {metrics}");
    }
}

#[tokio::test]
async fn answers_look_like_this() {
    let rig = Rig::espresso().await;
    rig.store(OBJECT, png()).await;
    let (_, body) = answer(rig.push_event(OBJECT).send().await).await;
    insta::assert_json_snapshot!(anonymous(body), @r#"
    {
      "confidence": 0.95661324,
      "duplicate": false,
      "gcs_path": "gs://local/x/image.png",
      "label": "espresso",
      "model": "MODEL",
      "status": "ok"
    }
    "#);
    let (_, body) = answer(rig.push_event(OBJECT).send().await).await;
    insta::assert_json_snapshot!(anonymous(body), @r#"
    {
      "confidence": 0.95661324,
      "duplicate": true,
      "gcs_path": "gs://local/x/image.png",
      "label": "espresso",
      "model": "MODEL",
      "status": "duplicate"
    }
    "#);
    let (_, body) = answer(rig.push_event("x/image.png.prediction.json").send().await).await;
    insta::assert_json_snapshot!(body, @r#"
    {
      "gcs_path": "gs://local/x/image.png.prediction.json",
      "message": "gs://local/x/image.png.prediction.json is a prediction",
      "reason": "our_prediction",
      "status": "ignored"
    }
    "#);
    let (_, body) = answer(rig.push_event("nothing").send().await).await;
    insta::assert_json_snapshot!(body, @r#"
    {
      "gcs_path": "gs://local/nothing",
      "message": "no such object: gs://local/nothing",
      "reason": "no_such_object",
      "status": "dead"
    }
    "#);
    rig.store("text", "hello").await;
    assert_eq!(answer(rig.push_event("text").send().await).await.0, 200);
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
async fn the_prediction_is_where_the_contract_says() {
    let rig = Rig::espresso().await;
    let id = "0123456789abcdef0123456789abcdef";
    rig.store(&format!("{id}/image.jpg"), png()).await;
    let unwrapped =
        json!({"gcs_path": format!("gs://local/{id}/image.jpg"), "id": id, "width": 8, "height": 8});
    let (status, body) = answer(rig.push_raw(unwrapped.to_string()).send().await).await;
    assert_eq!((status, &body["status"]), (200, &json!("ok")), "{body}");
    let record = rig.stored(&format!("{id}/prediction.json")).await.unwrap();
    assert_eq!((&record["label"], &record["gcs_path"]), (&body["label"], &body["gcs_path"]));
}

#[tokio::test]
async fn the_same_event_at_the_same_time_is_classified_once() {
    let (engine, mut gate) = Gate::new(false);
    let rig = Rig::with(Settings::default(), vec![engine]).await;
    rig.store(OBJECT, png()).await;
    let mut pushes = vec![tokio::spawn(rig.push_event(OBJECT).send())];
    gate.taken().await;
    // The network is busy with the first one while the others come.
    for _ in 0..3 {
        pushes.push(tokio::spawn(rig.push_event(OBJECT).send()));
        pushes.push(tokio::spawn(rig.push_notification(OBJECT, 1).send()));
    }
    gate.release(Verdict::Espresso);
    let mut words = Vec::new();
    for push in pushes {
        words.push(answer(push.await.unwrap()).await.1["status"].as_str().unwrap().to_owned());
    }
    words.sort_unstable();
    assert_eq!(words, ["duplicate", "duplicate", "duplicate", "duplicate", "duplicate", "duplicate", "ok"]);
    assert_eq!(gate.untold(), 0, "the network ran once");
}

#[tokio::test]
async fn a_dead_image_is_refused_until_that_is_on_record() {
    let rig = Rig::espresso().await;
    rig.store(OBJECT, "hello").await;
    rig.bucket.set_down(true);
    assert_eq!(answer(rig.push_event(OBJECT).send().await).await.0, 503);
    rig.bucket.set_down(false);
    assert_eq!(answer(rig.push_event(OBJECT).send().await).await.1["reason"], "not_an_image");
}

#[tokio::test]
async fn garbage_in_place_of_a_prediction_does_not_bring_the_event_back_for_ever() {
    let rig = Rig::espresso().await;
    rig.store(OBJECT, png()).await;
    rig.store(PREDICTION, r#"{"neither":"nor"}"#).await;
    let (status, body) = answer(rig.push_event(OBJECT).send().await).await;
    assert_eq!((status, &body["status"]), (200, &json!("ok")), "{body}");
}

#[tokio::test]
async fn an_image_whose_prediction_has_no_room_in_the_bucket_is_dead() {
    let rig = Rig::espresso().await;
    // Short enough itself, but not with what is appended for the prediction.
    let name = "n".repeat(250);
    rig.store(&name, png()).await;
    let (status, body) = answer(rig.push_event(&name).send().await).await;
    assert_eq!((status, &body["reason"]), (200, &json!("bad_path")), "{body}");
}
