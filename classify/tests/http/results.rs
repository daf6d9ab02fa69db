//! Tests that every new record is published once on the results topic.

use contract::ResultMessage;
use platform::topic::push::Delivery;
use serde_json::{Value, json};

use crate::rig::{Rig, encode_png, hide_model_and_backend, read_json};

/// Id of an image that preprocess stored.
const ID: &str = "0123456789abcdef0123456789abcdef";
/// Trace context of the announcement, in the format of the header `traceparent`.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Returns the data of every published message, in order.
fn published_data(rig: &Rig) -> Vec<Value> {
    rig.results.messages().iter().map(|message| serde_json::from_slice(&message.data).unwrap()).collect()
}

#[tokio::test]
async fn published_prediction_equals_the_record() {
    let rig = Rig::with_espresso_engine().await;
    let name = format!("{ID}/image.jpg");
    rig.store(&name, encode_png()).await;
    let announcement = Delivery {
        data: json!({ "gcs_path": format!("gs://local/{name}") }).to_string().into(),
        attributes: [("traceparent".to_owned(), TRACEPARENT.to_owned())].into(),
        ..Delivery::default()
    };
    for status in ["ok", "duplicate"] {
        assert_eq!(read_json(rig.push_delivery(&announcement).send().await).await.1["status"], status);
    }

    let messages = rig.results.messages();
    assert_eq!(messages.len(), 1, "a duplicate publishes nothing");
    let attributes = [("content-type", "application/json"), ("traceparent", TRACEPARENT)];
    assert_eq!(
        messages[0].attributes,
        attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    );
    let result: ResultMessage = serde_json::from_slice(&messages[0].data).unwrap();
    assert_eq!(result.id.unwrap().as_str(), ID);
    assert!(result.predicted_at.starts_with("20") && result.predicted_at.ends_with('Z'));

    let mut data = published_data(&rig).remove(0);
    for member in ["id", "predicted_at"] {
        assert!(data.as_object_mut().unwrap().remove(member).is_some());
    }
    assert_eq!(data, rig.stored(&format!("{ID}/prediction.json")).await.unwrap());
}

#[tokio::test]
async fn recorded_failure_is_published() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("text", "hello").await;
    for _ in 0..2 {
        assert_eq!(read_json(rig.push_event("text").send().await).await.1["status"], "dead");
    }
    let mut messages = published_data(&rig);
    assert_eq!(messages.len(), 1);
    let mut data = hide_model_and_backend(messages.remove(0));
    data["predicted_at"] = json!("TIME");
    insta::assert_json_snapshot!(data, @r#"
    {
      "error": {
        "message": "the bytes are not a readable image",
        "reason": "not_an_image"
      },
      "gcs_path": "gs://local/text",
      "predicted_at": "TIME"
    }
    "#);
    assert!(!rig.results.messages()[0].attributes.contains_key("traceparent"));
}

#[tokio::test]
async fn nothing_is_published_without_a_new_record() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("cat.png", encode_png()).await;
    rig.store("known.png", encode_png()).await;
    // Another version of the service has stored this record.
    rig.store("known.png.prediction.json", r#"{"label":"espresso"}"#).await;
    assert_eq!(rig.post_image(encode_png()).send().await.unwrap().status(), 200);
    for name in ["gone.png", "known.png", "cat.png.prediction.json", "folder/"] {
        assert_eq!(rig.push_event(name).send().await.unwrap().status(), 200);
    }
    assert_eq!(published_data(&rig), [] as [Value; 0]);
    // `POST /classify` also publishes the record that it stores. The second request finds that record. The
    // third request needs more classes, but an existing record is not replaced.
    for top_k in [2, 2, 6] {
        let request = json!({"gcs_path": "gs://local/cat.png", "top_k": top_k});
        assert_eq!(rig.post("/classify").json(&request).send().await.unwrap().status(), 200);
        assert_eq!(published_data(&rig).len(), 1);
    }
    assert_eq!(read_json(rig.push_event("cat.png").send().await).await.1["status"], "duplicate");
    assert_eq!(published_data(&rig).len(), 1);
}

#[tokio::test]
async fn failed_publication_gives_503_and_leaves_no_record() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("cat.png", encode_png()).await;
    rig.store("text", "hello").await;
    for (name, expected_status) in [("cat.png", "ok"), ("text", "dead")] {
        let count_before = published_data(&rig).len();
        rig.results.fail_next(1);
        let (status, body) = read_json(rig.push_event(name).send().await).await;
        assert_eq!((status, &body["kind"]), (503, &json!("topic_unavailable")), "{body}");
        assert!(rig.stored(&format!("{name}.prediction.json")).await.is_none());
        assert_eq!(published_data(&rig).len(), count_before);

        let (status, body) = read_json(rig.push_event(name).send().await).await;
        assert_eq!((status, &body["status"]), (200, &json!(expected_status)), "{body}");
        assert!(rig.stored(&format!("{name}.prediction.json")).await.is_some());
        assert_eq!(published_data(&rig).len(), count_before + 1);
    }
    let metrics = rig.get("/metrics").send().await.unwrap().text().await.unwrap();
    for outcome in ["published", "failed"] {
        let counter = format!("classify_results_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&counter), "{counter} is not in {metrics}");
    }
}

#[tokio::test]
async fn result_whose_record_could_not_be_stored_is_published_again() {
    let rig = Rig::with_espresso_engine().await;
    rig.store("cat.png", encode_png()).await;
    rig.bucket.set_full(true);
    let (status, body) = read_json(rig.push_event("cat.png").send().await).await;
    assert_eq!((status, &body["kind"]), (503, &json!("bucket_unavailable")), "{body}");
    rig.bucket.set_full(false);
    assert_eq!(read_json(rig.push_event("cat.png").send().await).await.1["status"], "ok");
    let [mut first, mut second] = <[Value; 2]>::try_from(published_data(&rig)).unwrap();
    for message in [&mut first, &mut second] {
        message["predicted_at"] = json!("TIME");
    }
    assert_eq!(first, second);
}
