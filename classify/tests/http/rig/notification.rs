//! Notifications of Cloud Storage.

use platform::topic::push::Delivery;
use serde_json::{Value, json};

/// Builds the notification that Cloud Storage sends about the object `name`.
pub(crate) fn build_notification(
    event_type: &str,
    name: &str,
    generation: i64,
    content_type: &str,
) -> Delivery {
    let version = generation.to_string();
    let attributes = [
        ("bucketId", "local"),
        ("eventTime", "2026-04-23T07:38:57.230Z"),
        ("eventType", event_type),
        ("notificationConfig", "projects/_/buckets/local/notificationConfigs/6"),
        ("objectGeneration", version.as_str()),
        ("objectId", name),
        ("payloadFormat", "JSON_API_V1"),
    ];
    Delivery {
        data: build_resource(name, generation, content_type).to_string().into(),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Delivery::default()
    }
}

/// Builds the JSON resource that describes the object `name` in notifications of Cloud Storage.
pub(crate) fn build_resource(name: &str, generation: i64, content_type: &str) -> Value {
    json!({
        "kind": "storage#object",
        "bucket": "local",
        "name": name,
        "generation": generation.to_string(),
        "metageneration": "1",
        "contentType": content_type,
        "size": "352",
    })
}
