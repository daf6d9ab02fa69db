//! What every topic must do; for tests (feature `testing`).

use std::{collections::BTreeMap, future::Future};

use bytes::Bytes;

use super::{Message, Topic, push::Delivery};

/// Publishes to `topic`, which must be empty, and compares with what its push delivered: `collect`
/// is given the number of messages published and waits for as many distinct ones.
///
/// # Panics
/// At the first promise of [`Topic`] that is not kept.
pub async fn check<F, C>(topic: &dyn Topic, collect: F)
where
    F: FnOnce(usize) -> C,
    C: Future<Output = Vec<Delivery>>,
{
    let mut published = BTreeMap::new();
    for message in messages() {
        match topic.publish(message.clone()).await {
            Ok(id) => {
                let before = published.insert(id.clone(), message);
                assert!(before.is_none(), "the id {id} came twice");
                assert!(!id.is_empty());
            }
            Err(error) => unreachable!("publishing: {error}"),
        }
    }
    let mut delivered = BTreeMap::new();
    for delivery in collect(published.len()).await {
        let Delivery { data, attributes, message_id, subscription, .. } = delivery;
        assert!(subscription.is_some_and(|name| name.starts_with("projects/")));
        // At least once: the same id may come again, with the same content.
        delivered.insert(message_id.unwrap_or_default(), Message { data, attributes });
    }
    assert_eq!(delivered, published);
}

fn messages() -> Vec<Message> {
    let attributes = BTreeMap::from([
        ("content-type".to_owned(), "image/jpeg".to_owned()),
        ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ("ключ".to_owned(), "\"wert\" \\ ü".to_owned()),
    ]);
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    vec![
        Message { data: Bytes::from_static(b"{\"gcs_path\":\"gs://b/o\"}"), attributes: attributes.clone() },
        // Twice the same: two messages all the same.
        Message { data: Bytes::from_static(b"same"), ..Message::default() },
        Message { data: Bytes::from_static(b"same"), ..Message::default() },
        // Pub/Sub takes a message without data only if it has attributes.
        Message { data: Bytes::new(), attributes },
        Message { data: every_byte.into(), ..Message::default() },
        Message { data: Bytes::from_static(b"\xff\xfe\0\r\n"), ..Message::default() },
    ]
}
