//! The message that announces a stored image on the topic.

use contract::{GcsPath, ImageEvent, ImageId};
use platform::topic::{Message, TRACEPARENT};

use crate::trace_context::TraceParent;

/// Content type of the stored image.
pub(crate) const JPEG_CONTENT_TYPE: &str = "image/jpeg";

/// Creates the message with the data `event`.
pub(crate) fn to_message(event: &ImageEvent, trace: &TraceParent) -> Message {
    let data = match serde_json::to_vec(event) {
        Ok(json) => json.into(),
        Err(error) => unreachable!("strings and numbers can always be serialized as JSON: {error}"),
    };
    let attributes = [
        ("content-type".to_owned(), JPEG_CONTENT_TYPE.to_owned()),
        (TRACEPARENT.to_owned(), trace.next_header()),
    ];
    Message { data, attributes: attributes.into() }
}

/// Creates a message that announces the stored image at `gcs_path`, for a topic that has lost the first one.
///
/// The message belongs to a new trace and does not contain the size of the image.
pub fn announce_again(gcs_path: GcsPath) -> Message {
    let event = ImageEvent { id: gcs_path.image_id(), gcs_path, width: None, height: None };
    to_message(&event, &TraceParent::new())
}

/// Returns the id of the image that `message` announces, or `None` if it announces no stored image.
pub fn announced_image_id(message: &Message) -> Option<ImageId> {
    serde_json::from_slice::<ImageEvent>(&message.data).ok()?.gcs_path.image_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_announcement_names_the_same_image_as_the_first() {
        let id: ImageId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let gcs_path = GcsPath::new("b", &id.image_object_name()).unwrap();
        let event =
            ImageEvent { gcs_path: gcs_path.clone(), id: Some(id.clone()), width: Some(1), height: Some(2) };
        let first = to_message(&event, &TraceParent::new());
        let repeated = announce_again(gcs_path);
        assert_eq!(announced_image_id(&first), Some(id.clone()));
        assert_eq!(announced_image_id(&repeated), Some(id));
        assert_eq!(
            repeated.attributes.keys().collect::<Vec<_>>(),
            first.attributes.keys().collect::<Vec<_>>()
        );
    }

    #[test]
    fn other_messages_announce_no_stored_image() {
        for data in ["", "{}", r#"{"gcs_path":"gs://b/cat.jpg"}"#, r#"{"gcs_path":7}"#] {
            let message = Message { data: data.into(), ..Message::default() };
            assert_eq!(announced_image_id(&message), None, "{data}");
        }
    }
}
