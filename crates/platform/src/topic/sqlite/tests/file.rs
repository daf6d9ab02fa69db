//! Tests of the file: durability, migration, damage and loss.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::*;
use crate::topic::sqlite::database::SCHEMA_VERSION;

/// The tables and a waiting message of version 0, with three dead letters.
pub(super) const FILE_OF_VERSION_0: &str = r#"
    PRAGMA journal_mode = WAL;
    CREATE TABLE messages (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        data         BLOB NOT NULL,
        attributes   TEXT NOT NULL,
        published_ms INTEGER NOT NULL,
        attempts     INTEGER NOT NULL DEFAULT 0,
        due_ms       INTEGER NOT NULL
    );
    CREATE INDEX messages_due ON messages (due_ms, id);
    CREATE TABLE dead (
        id           INTEGER PRIMARY KEY,
        data         BLOB NOT NULL,
        attributes   TEXT NOT NULL,
        published_ms INTEGER NOT NULL,
        attempts     INTEGER NOT NULL,
        died_ms      INTEGER NOT NULL,
        reason       TEXT NOT NULL
    );
    INSERT INTO messages VALUES (7, x'61', '{"name":"a"}', 1, 19, 2);
    INSERT INTO dead VALUES (3, x'62', '{"name":"b"}', 1, 20, 2, 'status 503');
    INSERT INTO dead VALUES (4, x'63', '{"name":"c"}', 1, 20, 2, 'no response to the last attempt');
"#;

fn topic_path(folder: &TempDir) -> PathBuf {
    folder.path().join("topic.sqlite")
}

/// Returns the names of the damaged files that were moved aside.
fn moved_files(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".damaged-")).collect()
}

fn remove_topic_files(folder: &TempDir) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.path().join(format!("topic.sqlite{suffix}")));
    }
}

#[tokio::test]
async fn file_of_version_0_is_migrated_and_its_dead_letters_are_delivered_again() {
    let folder = tempfile::tempdir().unwrap();
    Connection::open(topic_path(&folder)).unwrap().execute_batch(FILE_OF_VERSION_0).unwrap();
    let topic = open_topic(&folder).await;
    let keys = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    assert_eq!(topic.find_keys(keys).await.unwrap(), ["a", "b", "c"].map(str::to_owned).into());
    let mut receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), RetryPolicy { max_attempts: 1, ..policy() });
    let mut delivered = BTreeMap::new();
    for _ in 0..3 {
        let delivery = receiver.next_delivery().await;
        delivered.insert(delivery.data, delivery.delivery_attempt);
    }
    let expected = [("a", 20), ("b", 1), ("c", 1)];
    assert_eq!(delivered, expected.map(|(text, n)| (Bytes::from(text), Some(n))).into());
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
    assert_eq!(publish(&topic, "d").await, 8, "ids are not reused");
    drop(topic);
    let topic = open_topic(&folder).await;
    assert_eq!(topic.store.stats().await.unwrap(), TopicStats { pending: 1, dead: 0 });
}

#[tokio::test]
async fn file_of_a_newer_version_is_refused_with_both_versions_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_topic(&folder).await);
    let newer = SCHEMA_VERSION + 1;
    Connection::open(topic_path(&folder)).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let error =
        SqliteTopic::open(&topic_path(&folder), BacklogPolicy::default(), message_key).await.unwrap_err();
    let text = error_chain(&error);
    assert!(text.contains(&format!("schema version {newer}")), "{text}");
    assert!(text.contains(&format!("only version {SCHEMA_VERSION}")), "{text}");
    assert_eq!(moved_files(&folder), [""; 0]);
}

#[tokio::test]
async fn damaged_file_is_moved_aside_when_the_topic_is_opened() {
    type Damage = fn(&Path);
    let cases: [Damage; 3] = [
        |path| std::fs::write(path, "not a database ".repeat(1000)).unwrap(),
        |path| {
            // The first page has the schema, and the second the messages.
            let mut bytes = std::fs::read(path).unwrap();
            bytes[4096..8192].fill(0);
            std::fs::write(path, bytes).unwrap();
        },
        |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
    ];
    for (number, damage) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let topic = open_topic(&folder).await;
        publish(&topic, "lost").await;
        close(topic, &folder).await;
        damage(&topic_path(&folder));
        let topic = open_topic(&folder).await;
        assert_eq!(topic.store.stats().await.unwrap(), TopicStats::default(), "case {number}");
        publish(&topic, "new").await;
        assert_eq!(moved_files(&folder).len(), 1, "case {number}");
    }
}

/// Closes the topic, and waits until its thread has copied the log into the file.
async fn close(topic: Arc<SqliteTopic>, folder: &TempDir) {
    drop(topic);
    let log = folder.path().join("topic.sqlite-wal");
    wait_until(|| async { !log.exists() }).await;
}

#[tokio::test]
async fn file_that_is_removed_while_open_is_replaced_and_the_loss_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let lost = publish(&topic, "lost").await;
    let mut losses = topic.losses();
    assert_eq!(*losses.borrow_and_update(), 0);
    remove_topic_files(&folder);
    topic.check_health().await.unwrap();
    assert_eq!(*losses.borrow_and_update(), 1);
    let id = publish(&topic, "new").await;
    assert!(id > lost, "the outcome of a delivery from the old file must not change a new message");
    topic.store.acknowledge(lost).await.unwrap();
    close(topic, &folder).await;
    let topic = open_topic(&folder).await;
    assert_eq!(topic.store.stats().await.unwrap(), TopicStats { pending: 1, dead: 0 });
}

#[tokio::test]
async fn log_that_is_removed_while_open_loses_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    publish(&topic, "a").await;
    std::fs::remove_file(folder.path().join("topic.sqlite-wal")).unwrap();
    publish(&topic, "b").await;
    assert_eq!(*topic.losses().borrow(), 1);
    assert_eq!(topic.store.stats().await.unwrap(), TopicStats { pending: 2, dead: 0 });
}

// A topic also measures its backlog every second, and would then be the first to notice the damage.
#[tokio::test]
async fn file_that_is_damaged_while_open_is_replaced_after_the_first_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&topic_path(&folder), message_key).await.unwrap();
    let insert = async |text| store.insert(message(text), None, 1).await;
    let mut losses = store.losses();
    let damage = |connection: &Connection| {
        connection.execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET rootpage = 999 WHERE name = 'messages';
             PRAGMA writable_schema = RESET;",
        )
    };
    store.run_in_transaction(damage).await.unwrap();
    assert!(insert("a").await.unwrap_err().is_damage());
    insert("b").await.unwrap();
    assert_eq!(*losses.borrow_and_update(), 1);
    assert_eq!(moved_files(&folder).len(), 1);
    assert_eq!(store.stats().await.unwrap(), TopicStats { pending: 1, dead: 0 });
}

#[tokio::test]
async fn topic_without_its_folder_is_not_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let path = data_dir.join("topic.sqlite");
    let topic = SqliteTopic::open(&path, BacklogPolicy::default(), message_key).await.unwrap();
    topic.check_health().await.unwrap();
    std::fs::rename(&data_dir, folder.path().join("away")).unwrap();
    std::fs::write(&data_dir, "a file, in which no folder can be").unwrap();
    assert!(topic.check_health().await.is_err());
    assert!(topic.publish(message("a")).await.is_err());
    std::fs::remove_file(&data_dir).unwrap();
    topic.check_health().await.unwrap();
}

#[tokio::test]
async fn file_in_a_path_that_cannot_be_a_folder_is_refused() {
    let path = Path::new("/dev/null/topic");
    assert!(SqliteTopic::open(path, BacklogPolicy::default(), message_key).await.is_err());
}

#[tokio::test]
async fn messages_ahead_are_those_that_are_due_earlier() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    for text in ["a", "b", "c"] {
        publish(&topic, text).await;
    }
    let ahead = async |key: &str| topic.count_ahead(key).await.unwrap();
    assert_eq!((ahead("a").await, ahead("b").await, ahead("c").await), (Some(0), Some(1), Some(2)));
    topic.store.reschedule(1, i64::MAX).await.unwrap();
    assert_eq!((ahead("a").await, ahead("b").await, ahead("c").await), (Some(2), Some(0), Some(1)));
    topic.store.acknowledge(2).await.unwrap();
    assert_eq!((ahead("a").await, ahead("b").await, ahead("c").await), (Some(1), None, Some(0)));
}

#[tokio::test]
async fn message_above_the_maximum_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let policy = BacklogPolicy { max_pending: 2, ..BacklogPolicy::default() };
    let path = topic_path(&folder);
    let open = || SqliteTopic::open(&path, policy.clone(), message_key);
    let topic = open().await.unwrap();
    publish(&topic, "a").await;
    publish(&topic, "b").await;
    assert!(matches!(topic.publish(message("c")).await, Err(TopicError::Full { .. })));
    close(topic, &folder).await;
    let topic = open().await.unwrap();
    assert!(matches!(topic.check_capacity(), Err(TopicError::Full { .. })), "the waiting messages count");
}

#[tokio::test]
async fn topic_gives_no_permit_while_one_waits_too_long_although_others_are_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    publish(&topic, "acknowledged").await;
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
    let id = publish(&topic, "waiting").await;
    let an_hour_ago = unix_millis(SystemTime::now()) - 3_600_000;
    for (due_ms, is_permitted) in [(an_hour_ago, false), (i64::MAX, true)] {
        topic.store.reschedule(id, due_ms).await.unwrap();
        topic.measure_backlog().await.unwrap();
        let permit = topic.acquire_publish_permit(Duration::ZERO).await;
        assert_eq!(permit.is_ok(), is_permitted, "{permit:?}");
    }
}
