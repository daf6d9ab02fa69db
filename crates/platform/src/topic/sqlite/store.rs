//! A [`Store`] keeps the messages of a topic in an SQLite file. One thread reads and writes the file.
//!
//! The thread runs jobs in transactions. All jobs that arrive during a transaction run in the next
//! transaction. Under load, many messages therefore share one fsync. Without load, a message does not wait
//! for others.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
#[cfg(test)]
use rusqlite::OptionalExtension;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use crate::{
    private_folder::{create_private_file, create_private_folder},
    topic::{Message, TopicError},
};

/// Maximum number of jobs per transaction.
const MAX_JOBS_PER_TRANSACTION: usize = 256;
/// Number of jobs that can wait for the thread. A further caller waits until there is room.
const JOB_QUEUE_CAPACITY: usize = MAX_JOBS_PER_TRANSACTION;
/// Maximum time to wait for another process that has locked the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Tables for waiting messages and for dead letters. Times are in milliseconds since the Unix epoch.
///
/// Because of AUTOINCREMENT, the id of a deleted message is never used again.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS messages (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        data         BLOB NOT NULL,
        attributes   TEXT NOT NULL,
        published_ms INTEGER NOT NULL,
        attempts     INTEGER NOT NULL DEFAULT 0,
        due_ms       INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS messages_due ON messages (due_ms, id);
    CREATE TABLE IF NOT EXISTS dead (
        id           INTEGER PRIMARY KEY,
        data         BLOB NOT NULL,
        attributes   TEXT NOT NULL,
        published_ms INTEGER NOT NULL,
        attempts     INTEGER NOT NULL,
        died_ms      INTEGER NOT NULL,
        reason       TEXT NOT NULL
    );
";

/// Reason why a job failed. The type is `Clone`, because a failed commit is the error of every job in the
/// transaction.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("SQLite failed")]
    Sqlite(#[from] Arc<rusqlite::Error>),
    #[error("the thread of the topic's file has ended")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// Number of messages in a topic.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicStats {
    /// Number of published messages that are not yet acknowledged.
    pub(super) pending: u64,
    /// Number of dead letters, which are no longer delivered.
    pub(super) dead: u64,
}

/// A unit of work for the store's thread. It is called with the connection in an open transaction, or with
/// the error that prevented the transaction.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> SendResult + Send>;
/// Sends the result of a job to its caller. It is called with the result of the commit.
type SendResult = Box<dyn FnOnce(Result<(), StoreError>)>;

/// A message that the pusher has claimed for delivery.
#[derive(Debug)]
pub(super) struct ClaimedMessage {
    pub(super) id: i64,
    pub(super) message: Message,
    /// Time of publication, in milliseconds since the Unix epoch.
    pub(super) published_ms: i64,
    /// Number of the delivery attempt. The first attempt is 1.
    pub(super) attempt: u32,
}

/// Result of [`Store::claim`].
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) messages: Vec<ClaimedMessage>,
    /// Earliest due time of the messages that are not due yet.
    pub(super) next_due_ms: Option<i64>,
}

/// A handle to the thread that reads and writes the file. Dropping the handle ends the thread, which closes
/// the file.
#[derive(Debug)]
pub(super) struct Store {
    job_sender: mpsc::Sender<Job>,
}

impl Store {
    pub(super) async fn open(path: &Path) -> Result<Self, TopicError> {
        let path = path.to_owned();
        match tokio::task::spawn_blocking(move || Self::open_blocking(path)).await {
            Ok(result) => result,
            Err(error) => Err(TopicError::Unavailable(error.into())),
        }
    }

    fn open_blocking(path: PathBuf) -> Result<Self, TopicError> {
        if let Some(folder) = path.parent() {
            create_private_folder(folder).map_err(|error| TopicError::Unavailable(error.into()))?;
        }
        // SQLite gives its other files the permissions of this file.
        create_private_file(&path).map_err(|error| TopicError::Unavailable(error.into()))?;
        let connection = connect(&path).map_err(|error| TopicError::Unavailable(error.into()))?;
        let (job_sender, job_receiver) = mpsc::channel(JOB_QUEUE_CAPACITY);
        thread::Builder::new()
            .name("topic".to_owned())
            .spawn(move || run_jobs(&connection, job_receiver))
            .map_err(|error| TopicError::Unavailable(error.into()))?;
        Ok(Self { job_sender })
    }

    /// Runs `work` in a transaction, and returns its result after the commit. If `work` fails, none of its
    /// changes are committed.
    pub(super) async fn run_in_transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| Ok(run_in_savepoint(connection, work)?));
            Box::new(move |committed| {
                // Sending fails only if the caller has dropped its future and does not need the result.
                let _ = sender.send(result.and_then(|value| committed.map(|()| value)));
            })
        });
        self.job_sender.send(job).await.map_err(|_| StoreError::Closed)?;
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Adds a message that is due at once, and returns its id.
    pub(super) async fn insert(&self, message: Message, now_ms: i64) -> Result<i64, StoreError> {
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO messages (data, attributes, published_ms, due_ms)
                     VALUES (?1, ?2, ?3, ?3)",
                )?
                .execute(params![message.data.as_ref(), attributes_to_json(&message.attributes)?, now_ms])?;
            Ok(connection.last_insert_rowid())
        })
        .await
    }

    /// Claims up to `limit` messages that are due, in the order of their due times. Skips the messages whose
    /// ids are in `leased_ids`, because the pusher is delivering them.
    ///
    /// This method counts the attempt before the delivery, so that a message that crashes this process is not
    /// delivered forever.
    ///
    /// `latest_valid_due_ms` is the current time plus the maximum backoff. A later due time means that the
    /// clock was set back, and the message becomes due at once.
    pub(super) async fn claim(
        &self,
        now_ms: i64,
        latest_valid_due_ms: i64,
        leased_ids: HashSet<i64>,
        limit: usize,
    ) -> Result<Claim, StoreError> {
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached("UPDATE messages SET due_ms = ?1 WHERE due_ms > ?2")?
                .execute([now_ms, latest_valid_due_ms])?;
            // Leased messages are still due, so the query returns them, too. The filter skips them, and
            // `row_limit` leaves room for them.
            let row_limit = i64::try_from(limit + leased_ids.len()).unwrap_or(i64::MAX);
            let messages = connection
                .prepare_cached(
                    "SELECT id, data, attributes, published_ms, attempts + 1 FROM messages
                     WHERE due_ms <= ?1 ORDER BY due_ms, id LIMIT ?2",
                )?
                .query_map([now_ms, row_limit], parse_claimed_message)?
                .filter(|row| !row.as_ref().is_ok_and(|message| leased_ids.contains(&message.id)))
                .take(limit)
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut set_attempts =
                connection.prepare_cached("UPDATE messages SET attempts = ?2 WHERE id = ?1")?;
            for message in &messages {
                set_attempts.execute(params![message.id, message.attempt])?;
            }
            let next_due_ms = connection
                .prepare_cached("SELECT min(due_ms) FROM messages WHERE due_ms > ?1")?
                .query_row([now_ms], |row| row.get(0))?;
            Ok(Claim { messages, next_due_ms })
        })
        .await
    }

    /// Deletes an acknowledged message.
    pub(super) async fn acknowledge(&self, id: i64) -> Result<(), StoreError> {
        self.run_in_transaction(move |connection| delete(connection, id)).await
    }

    /// Sets the time when a message is delivered again.
    pub(super) async fn reschedule(&self, id: i64, due_ms: i64) -> Result<(), StoreError> {
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached("UPDATE messages SET due_ms = ?2 WHERE id = ?1")?
                .execute([id, due_ms])?;
            Ok(())
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
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO dead
                     SELECT id, data, attributes, published_ms, attempts, ?2, ?3
                     FROM messages WHERE id = ?1",
                )?
                .execute(params![id, died_ms, reason])?;
            delete(connection, id)
        })
        .await
    }

    #[cfg(test)]
    pub(super) async fn stats(&self) -> Result<TopicStats, StoreError> {
        self.run_in_transaction(|connection| {
            let sql = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM dead)";
            connection.query_row(sql, [], |row| {
                let count = |column| row.get(column).map(|n: i64| n.unsigned_abs());
                Ok(TopicStats { pending: count(0)?, dead: count(1)? })
            })
        })
        .await
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // With FULL, a commit is synced to disk before it returns.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// Runs jobs in transactions until the [`Store`] is dropped. This is the function of the store's thread.
fn run_jobs(connection: &Connection, mut job_receiver: mpsc::Receiver<Job>) {
    while let Some(first) = job_receiver.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_JOBS_PER_TRANSACTION
            && let Ok(next) = job_receiver.try_recv()
        {
            batch.push(next);
        }
        match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
            Ok(transaction) => {
                let result_senders: Vec<SendResult> =
                    batch.into_iter().map(|job| job(Ok(&transaction))).collect();
                let committed = transaction.commit().map_err(StoreError::from);
                for send_result in result_senders {
                    send_result(committed.clone());
                }
            }
            Err(error) => {
                let error = StoreError::from(error);
                for job in batch {
                    let send_result = job(Err(error.clone()));
                    // There is no commit that could fail. The caller gets the error that the job got.
                    send_result(Ok(()));
                }
            }
        }
    }
}

/// Runs `work`, and undoes its changes if it fails. The other jobs of the same transaction keep theirs.
fn run_in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = work(connection);
    // After some errors, such as a full disk, SQLite has already rolled back the whole transaction, and with it
    // the savepoint.
    if result.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    if !connection.is_autocommit() {
        connection.prepare_cached("RELEASE job")?.execute([])?;
    }
    result
}

fn delete(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
    Ok(())
}

fn parse_claimed_message(row: &rusqlite::Row<'_>) -> rusqlite::Result<ClaimedMessage> {
    let attributes: String = row.get(2)?;
    Ok(ClaimedMessage {
        id: row.get(0)?,
        message: Message {
            data: Bytes::from(row.get::<_, Vec<u8>>(1)?),
            attributes: serde_json::from_str(&attributes).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into())
            })?,
        },
        published_ms: row.get(3)?,
        attempt: row.get(4)?,
    })
}

fn attributes_to_json(attributes: &BTreeMap<String, String>) -> rusqlite::Result<String> {
    serde_json::to_string(attributes).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

#[cfg(test)]
impl Store {
    /// Returns the due time and the number of attempts of a waiting message.
    pub(super) async fn due_and_attempts(&self, id: i64) -> Option<(i64, u32)> {
        let query = move |connection: &Connection| {
            let sql = "SELECT due_ms, attempts FROM messages WHERE id = ?1";
            connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        self.run_in_transaction(query).await.unwrap()
    }

    /// Returns the number of attempts and the reason of a dead letter.
    pub(super) async fn dead_letter(&self, id: i64) -> Option<(u32, String)> {
        let query = move |connection: &Connection| {
            let sql = "SELECT attempts, reason FROM dead WHERE id = ?1";
            connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        self.run_in_transaction(query).await.unwrap()
    }
}
