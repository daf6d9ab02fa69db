//! A [`Store`] keeps the messages of a topic in an SQLite file. One thread reads and writes the file.
//!
//! The thread runs jobs in transactions. All jobs that arrive during a transaction run in the next
//! transaction. Under load, many messages therefore share one fsync. Without load, a message does not wait
//! for others.
//!
//! If the file is removed, replaced or found to be damaged, the thread opens a new file before the next
//! transaction, and reports that messages may be lost. A single row that is not a message is moved to the dead
//! letters, and reported in the same way.
//!
//! - `claim` claims messages for delivery, and recovers those whose delivery was interrupted.
//! - `worker` runs the jobs of the thread.
//! - `row` converts between messages and columns.
//! - `error` has the reasons why a job fails.

mod claim;
mod error;
mod row;
#[cfg(test)]
mod test_state;
mod worker;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    thread,
};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot, watch};

#[cfg(test)]
pub(super) use self::test_state::{MessageState, TopicStats};
pub(super) use self::{
    claim::{Claim, ClaimRequest, ClaimedMessage},
    error::StoreError,
    row::parse_message,
};
use self::{
    row::{attributes_to_json, delete},
    worker::{Job, JobResult, LossCounter, MAX_JOBS_PER_TRANSACTION, SendResult, Worker, run_in_savepoint},
};
use super::{
    MessageKey,
    database::{Database, SCHEMA_VERSION},
};
use crate::topic::Message;

/// Number of jobs that can wait for the thread. A further caller waits until there is room.
const JOB_QUEUE_CAPACITY: usize = MAX_JOBS_PER_TRANSACTION;
/// Maximum number of messages that [`Store::count_ahead`] counts, so that the count takes at most about a
/// millisecond.
const MAX_COUNTED_AHEAD: u32 = 10_000;

/// The backlog of a topic at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BacklogSample {
    /// Number of messages that are not acknowledged yet.
    pub(super) pending: u64,
    /// Time when the oldest message was published.
    pub(super) oldest_published_ms: Option<i64>,
    /// Time since when the first message that waits for its delivery is due. Suspects are not considered.
    pub(super) due_since_ms: Option<i64>,
}

/// A handle to the thread that reads and writes the file. Dropping the handle ends the thread, which closes
/// the file.
#[derive(Debug)]
pub(super) struct Store {
    job_sender: mpsc::Sender<Job>,
    losses: LossCounter,
}

impl Store {
    pub(super) async fn open(path: &Path, message_key: MessageKey) -> Result<Self, StoreError> {
        let path = path.to_owned();
        match tokio::task::spawn_blocking(move || Self::open_blocking(path, message_key)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Closed),
        }
    }

    fn open_blocking(path: PathBuf, message_key: MessageKey) -> Result<Self, StoreError> {
        let database = Database::open(&path, message_key)?;
        let losses = LossCounter::default();
        let highest_id = database.highest_id()?;
        let mut worker =
            Worker { path, message_key, database: Some(database), highest_id, losses: losses.clone() };
        let (job_sender, job_receiver) = mpsc::channel(JOB_QUEUE_CAPACITY);
        thread::Builder::new().name("topic".to_owned()).spawn(move || worker.run_jobs(job_receiver))?;
        Ok(Self { job_sender, losses })
    }

    /// Returns the number of times that messages may have been lost, because the file was removed, replaced
    /// or damaged, or a message could not be read.
    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// Runs `work` in a transaction, and returns its result after the commit. If `work` fails, none of its
    /// changes are committed.
    pub(super) async fn run_in_transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| run_in_savepoint(connection, work));
            let found_damage = result.as_ref().is_err_and(StoreError::is_damage);
            let send: SendResult = Box::new(move |committed| {
                // Sending fails only if the caller has dropped its future and does not need the result.
                let _ = sender.send(result.and_then(|value| committed.map(|()| value)));
            });
            JobResult { send, found_damage }
        });
        self.job_sender.send(job).await.map_err(|_| StoreError::Closed)?;
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Adds a message that is due at once, and returns its id.
    pub(super) async fn insert(
        &self,
        message: Message,
        key: Option<String>,
        now_ms: i64,
    ) -> Result<i64, StoreError> {
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO messages (data, attributes, published_ms, due_ms, key)
                     VALUES (?1, ?2, ?3, ?3, ?4)",
                )?
                .execute(params![
                    message.data.as_ref(),
                    attributes_to_json(&message.attributes)?,
                    now_ms,
                    key
                ])?;
            Ok(connection.last_insert_rowid())
        })
        .await
    }

    /// Deletes an acknowledged message.
    pub(super) async fn acknowledge(&self, id: i64) -> Result<(), StoreError> {
        self.run_in_transaction(move |connection| delete(connection, id)).await
    }

    /// Sets the time when a message is delivered again. The message is no longer a suspect.
    pub(super) async fn reschedule(&self, id: i64, due_ms: i64) -> Result<(), StoreError> {
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached("UPDATE messages SET due_ms = ?2, delivery = 0, suspect = 0 WHERE id = ?1")?
                .execute([id, due_ms])?;
            Ok(())
        })
        .await
    }

    /// Adds a failure to a message, and sets the time when the message is delivered again. The message is no
    /// longer a suspect.
    pub(super) async fn add_failure(&self, id: i64, due_ms: i64, reason: String) -> Result<(), StoreError> {
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE messages SET due_ms = ?2, delivery = 0, suspect = 0, failures = failures + 1,
                     last_failure = ?3 WHERE id = ?1",
                )?
                .execute(params![id, due_ms, reason])?;
            Ok(())
        })
        .await
    }

    /// Makes all messages due that wait after refusals only. They are delivered in the order of publication.
    pub(super) async fn wake_refused(&self, now_ms: i64) -> Result<usize, StoreError> {
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE messages SET due_ms = min(published_ms, ?1)
                     WHERE due_ms > ?1 AND suspect = 0 AND failures = 0",
                )?
                .execute([now_ms])
        })
        .await
    }

    /// Moves a message to the dead letters.
    pub(super) async fn move_to_dead_letters(
        &self,
        id: i64,
        died_ms: i64,
        reason: String,
    ) -> Result<(), StoreError> {
        self.run_in_transaction(move |connection| row::move_to_dead_letters(connection, id, died_ms, &reason))
            .await
    }

    /// Returns those of `keys` that a waiting message has.
    pub(super) async fn find_keys(&self, keys: Vec<String>) -> Result<HashSet<String>, StoreError> {
        self.run_in_transaction(move |connection| {
            let mut exists = connection.prepare_cached("SELECT 1 FROM messages WHERE key = ?1")?;
            let mut found = HashSet::new();
            for key in keys {
                if exists.exists([&key])? {
                    found.insert(key);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Returns the number of messages that are due before the message with the key `key`, at most
    /// [`MAX_COUNTED_AHEAD`]. Returns `None` if no waiting message has the key.
    pub(super) async fn count_ahead(&self, key: String) -> Result<Option<u64>, StoreError> {
        self.run_in_transaction(move |connection| {
            let own: Option<(i64, i64)> = connection
                .prepare_cached("SELECT due_ms, id FROM messages WHERE key = ?1 ORDER BY due_ms, id LIMIT 1")?
                .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((due_ms, id)) = own else { return Ok(None) };
            connection
                .prepare_cached(
                    "SELECT count(*) FROM (SELECT 1 FROM messages INDEXED BY messages_due
                     WHERE (due_ms, id) < (?1, ?2) LIMIT ?3)",
                )?
                .query_row(params![due_ms, id, MAX_COUNTED_AHEAD], |row| row.get(0).map(i64::unsigned_abs))
                .map(Some)
        })
        .await
    }

    /// Measures the backlog.
    pub(super) async fn sample_backlog(&self, now_ms: i64) -> Result<BacklogSample, StoreError> {
        self.run_in_transaction(move |connection| {
            let pending = connection
                .prepare_cached("SELECT count(*) FROM messages")?
                .query_row([], |row| row.get(0).map(i64::unsigned_abs))?;
            // A time that cannot be read counts as unknown, because a topic without a measurement cannot be
            // opened.
            let oldest_published_ms = connection
                .prepare_cached("SELECT published_ms FROM messages ORDER BY id LIMIT 1")?
                .query_row([], |row| Ok(row.get(0).ok()))
                .optional()?
                .flatten();
            let due_since_ms = connection
                .prepare_cached(
                    "SELECT due_ms FROM messages WHERE due_ms <= ?1 AND suspect = 0 AND delivery = 0
                     ORDER BY due_ms, id LIMIT 1",
                )?
                .query_row([now_ms], |row| Ok(row.get(0).ok()))
                .optional()?
                .flatten();
            Ok(BacklogSample { pending, oldest_published_ms, due_since_ms })
        })
        .await
    }

    /// Writes to the file, without changing its content.
    pub(super) async fn check_writable(&self) -> Result<(), StoreError> {
        self.run_in_transaction(|connection| connection.pragma_update(None, "user_version", SCHEMA_VERSION))
            .await
    }
}
