//! The tests that every implementation of a topic must pass (feature `testing`).

use std::{collections::BTreeMap, future::Future};

use bytes::Bytes;

use super::{Message, Topic, push::Delivery};

/// Publishes messages to `topic`, which must be empty, and checks that the same messages are delivered.
///
/// `collect` is called with the number of published messages. It must wait until that many distinct messages
/// have been delivered, and return the deliveries.
///
/// # Panics
/// Panics at the first difference from the documentation of [`Topic`].
pub async fn check<F, C>(topic: &dyn Topic, collect: F)
where
    F: FnOnce(usize) -> C,
    C: Future<Output = Vec<Delivery>>,
{
    let mut published = BTreeMap::new();
    for message in test_messages() {
        match topic.publish(message.clone()).await {
            Ok(id) => {
                let previous = published.insert(id.clone(), message);
                assert!(previous.is_none(), "two messages have the id {id}");
                assert!(!id.is_empty());
            }
            Err(error) => unreachable!("publishing failed: {error}"),
        }
    }
    let mut delivered = BTreeMap::new();
    for delivery in collect(published.len()).await {
        let Delivery { data, attributes, message_id, subscription, .. } = delivery;
        assert!(subscription.is_some_and(|name| name.starts_with("projects/")));
        // A topic may deliver a message more than once, so a repeated id is not an error.
        delivered.insert(message_id.unwrap_or_default(), Message { data, attributes });
    }
    assert_eq!(delivered, published);
}

fn test_messages() -> Vec<Message> {
    let attributes = BTreeMap::from([
        ("content-type".to_owned(), "image/jpeg".to_owned()),
        ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ("ключ".to_owned(), "\"wert\" \\ ü".to_owned()),
    ]);
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    vec![
        Message { data: Bytes::from_static(b"{\"gcs_path\":\"gs://b/o\"}"), attributes: attributes.clone() },
        // These two messages have equal content but must get different ids.
        Message { data: Bytes::from_static(b"same"), ..Message::default() },
        Message { data: Bytes::from_static(b"same"), ..Message::default() },
        // Pub/Sub accepts a message without data only if it has attributes.
        Message { data: Bytes::new(), attributes },
        Message { data: every_byte.into(), ..Message::default() },
        Message { data: Bytes::from_static(b"\xff\xfe\0\r\n"), ..Message::default() },
    ]
}
