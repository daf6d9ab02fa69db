//! Tests of rows that are not messages, because the file was damaged or changed by another program.

use rusqlite::Connection;

use super::*;
use crate::{
    telemetry::CapturedLog,
    topic::sqlite::{store::StoreError, tests::file::FILE_OF_VERSION_0},
};

/// Publishes two messages, and executes `sql`, which damages the first. Returns the topic, opened again.
async fn open_damaged_topic(folder: &TempDir, sql: String) -> Arc<SqliteTopic> {
    let topic = open_topic(folder).await;
    assert_eq!(publish(&topic, "damaged").await, 1);
    publish(&topic, "intact").await;
    topic.store.run_in_transaction(move |connection| connection.execute_batch(&sql)).await.unwrap();
    drop(topic);
    open_topic(folder).await
}

#[tokio::test]
async fn message_with_an_unreadable_column_becomes_a_dead_letter_and_the_others_are_delivered() {
    let cases = [
        ("attributes = 'not JSON'", "attributes"),
        ("attributes = '{\"name\":1}'", "attributes"),
        ("attributes = x'7b7d'", "attributes"),
        ("attributes = CAST(x'ff' AS TEXT)", "attributes"),
        ("data = 'text'", "data"),
        ("published_ms = 'text'", "published_ms"),
        ("attempts = -2", "attempt"),
        ("attempts = 9223372036854775807", "attempt"),
        ("failures = 'text'", "failures"),
        ("last_failure = CAST(x'ff' AS TEXT)", "last_failure"),
        ("due_ms = 0.5", "due_ms"),
    ];
    for ((damage, column), is_suspect) in cases.into_iter().flat_map(|case| [(case, 0), (case, 1)]) {
        let folder = tempfile::tempdir().unwrap();
        let sql = format!("UPDATE messages SET {damage}, suspect = {is_suspect} WHERE id = 1");
        let topic = open_damaged_topic(&folder, sql).await;
        let losses = topic.losses();
        let log = CapturedLog::start("error");
        let mut receiver = Receiver::start(always_ok).await;
        // The damaged row is the first, and takes the place of the only message that may be claimed.
        let one_at_a_time = RetryPolicy { max_outstanding: 1, ..policy() };
        let pusher = start_pusher(&topic, &receiver.url(), one_at_a_time);
        assert_eq!(receiver.next_delivery().await.data, "intact", "{damage}");
        wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
        stop_pusher(pusher).await;
        let read_reason = |connection: &Connection| {
            connection.query_row("SELECT reason FROM dead WHERE id = 1", [], |row| row.get::<_, String>(0))
        };
        let reason = topic.store.run_in_transaction(read_reason).await.unwrap();
        assert!(reason.contains(&format!("the column {column} cannot be read")), "{damage}: {reason}");
        let lines = log.take_lines();
        assert!(lines.len() == 1 && lines[0].contains("becomes a dead letter"), "{damage}: {lines:?}");
        assert_eq!(*losses.borrow(), 1, "the image is announced again after a loss");
    }
}

#[tokio::test]
async fn message_whose_columns_are_null_becomes_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'messages';
        PRAGMA writable_schema = RESET;
        UPDATE messages SET data = NULL, attributes = NULL, published_ms = NULL, attempts = NULL WHERE id = 1;";
    let topic = open_damaged_topic(&folder, sql.to_owned()).await;
    let mut receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    assert_eq!(receiver.next_delivery().await.data, "intact");
    wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
    stop_pusher(pusher).await;
}

#[tokio::test]
async fn message_with_a_damaged_state_is_delivered() {
    for damage in
        ["delivery = 'text'", "delivery = 2, failures = 'text'", "suspect = 'text'", "due_ms = 'text'"]
    {
        let folder = tempfile::tempdir().unwrap();
        let topic = open_damaged_topic(&folder, format!("UPDATE messages SET {damage} WHERE id = 1")).await;
        let mut receiver = Receiver::start(always_ok).await;
        let pusher = start_pusher(&topic, &receiver.url(), policy());
        let delivered = [receiver.next_delivery().await.data, receiver.next_delivery().await.data];
        assert!(delivered.iter().any(|data| data == "damaged"), "{damage}: {delivered:?}");
        wait_for_stats(&topic, TopicStats::default()).await;
        stop_pusher(pusher).await;
    }
}

#[tokio::test]
async fn damaged_sequence_of_ids_does_not_keep_the_topic_from_being_opened() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_damaged_topic(&folder, "UPDATE sqlite_sequence SET seq = 'text'".to_owned()).await;
    assert_eq!(publish(&topic, "a").await, 3);
}

#[tokio::test]
async fn file_of_version_0_with_damaged_rows_is_migrated() {
    fn panicking_key(message: &Message) -> Option<String> {
        assert_ne!(message.data, "e", "panic for this test");
        message_key(message)
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("topic.sqlite");
    let file = Connection::open(&path).unwrap();
    file.execute_batch(FILE_OF_VERSION_0).unwrap();
    // The message 7 is also waiting.
    file.execute_batch(
        r#"INSERT INTO messages VALUES (8, x'64', 'not JSON', 1, 0, 2);
        INSERT INTO messages VALUES (9, x'65', '{"name":"e"}', 1, 0, 2);
        INSERT INTO dead VALUES (7, x'61', '{"name":"a"}', 1, 20, 2, 'status 503');"#,
    )
    .unwrap();
    drop(file);
    let topic = SqliteTopic::open(&path, BacklogPolicy::default(), panicking_key).await.unwrap();
    let keys = ["a", "b", "c", "d", "e"].map(str::to_owned);
    assert_eq!(topic.find_keys(keys.to_vec()).await.unwrap(), ["a", "b", "c"].map(str::to_owned).into());
    let mut receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
    stop_pusher(pusher).await;
    let mut delivered = Vec::new();
    while let Ok(delivery) = receiver.deliveries.try_recv() {
        delivered.push(delivery.data);
    }
    delivered.sort_unstable();
    assert_eq!(delivered, ["a", "b", "c", "e"]);
}

#[tokio::test]
async fn job_that_panics_fails_and_the_thread_runs_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let delete_and_panic = |connection: &Connection| -> rusqlite::Result<()> {
        connection.execute("DELETE FROM messages", [])?;
        panic!("panic for this test");
    };
    publish(&topic, "a").await;
    let error = topic.store.run_in_transaction(delete_and_panic).await.unwrap_err();
    assert!(matches!(error, StoreError::Panicked(_)), "{error:?}");
    publish(&topic, "b").await;
    assert_eq!(topic.store.stats().await.unwrap(), TopicStats { pending: 2, dead: 0 });
}
