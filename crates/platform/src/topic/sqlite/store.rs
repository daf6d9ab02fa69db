//! A [`Store`] is the file of a topic. One thread reads and writes the file.
//!
//! All jobs that arrive while a transaction is committed share the next transaction. Under load many messages
//! share one fsync; without load a message does not wait for others.

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

use crate::topic::{Message, TopicError};

/// Maximum number of jobs per transaction.
const MAX_BATCH: usize = 256;
/// Maximum time to wait for another process that has locked the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Reason why a job failed. `Clone`, because a failed commit is reported to every job of the transaction.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("SQLite failed")]
    Sqlite(#[from] Arc<rusqlite::Error>),
    #[error("the thread of the file has ended")]
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

/// Runs within a transaction, or receives the reason why there is none. The returned function sends the
/// result to the caller after the commit.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), StoreError>)>;

/// A message claimed for delivery.
#[derive(Debug)]
pub(super) struct ClaimedMessage {
    pub(super) id: i64,
    pub(super) message: Message,
    pub(super) published_ms: i64,
    /// Number of the delivery attempt; the first is 1.
    pub(super) attempt: u32,
}

/// Result of [`Store::claim`].
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) messages: Vec<ClaimedMessage>,
    /// Earliest due time of the messages that are not due yet.
    pub(super) next_due_ms: Option<i64>,
}

/// A handle to the thread of the file. Dropping it ends the thread, which closes the file.
#[derive(Debug)]
pub(super) struct Store {
    jobs: mpsc::Sender<Job>,
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
            std::fs::create_dir_all(folder).map_err(|error| TopicError::Unavailable(error.into()))?;
        }
        let connection = connect(&path).map_err(|error| TopicError::Unavailable(error.into()))?;
        let (jobs, receiver) = mpsc::channel(MAX_BATCH);
        thread::Builder::new()
            .name("topic".to_owned())
            .spawn(move || run_jobs(&connection, receiver))
            .map_err(|error| TopicError::Unavailable(error.into()))?;
        Ok(Self { jobs })
    }

    /// Runs `work` in a transaction, and returns its result after the commit.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| Ok(work(connection)?));
            Box::new(move |committed| {
                // Sending fails only if the caller has dropped its future. Then nobody needs the result.
                let _ = sender.send(result.and_then(|value| committed.map(|()| value)));
            })
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Adds a message that is due at once, and returns its id.
    pub(super) async fn insert(&self, message: Message, now_ms: i64) -> Result<i64, StoreError> {
        self.call(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO messages (data, attributes, published_ms, due_ms)
                     VALUES (?1, ?2, ?3, ?3)",
                )?
                .execute(params![message.data.as_ref(), to_json(&message.attributes)?, now_ms])?;
            Ok(connection.last_insert_rowid())
        })
        .await
    }

    /// Claims up to `limit` messages that are due and not in `leased`, in the order of their due times.
    ///
    /// The attempt is counted before the delivery, so that a message that crashes this process is not
    /// delivered forever. A due time after `horizon_ms` means that the clock was set back, and becomes due at
    /// once.
    pub(super) async fn claim(
        &self,
        now_ms: i64,
        horizon_ms: i64,
        leased: HashSet<i64>,
        limit: usize,
    ) -> Result<Claim, StoreError> {
        self.call(move |connection| {
            connection
                .prepare_cached("UPDATE messages SET due_ms = ?1 WHERE due_ms > ?2")?
                .execute([now_ms, horizon_ms])?;
            // Leased messages are due, too. The query returns them, and the filter skips them.
            let row_limit = i64::try_from(limit + leased.len()).unwrap_or(i64::MAX);
            let messages = connection
                .prepare_cached(
                    "SELECT id, data, attributes, published_ms, attempts + 1 FROM messages
                     WHERE due_ms <= ?1 ORDER BY due_ms, id LIMIT ?2",
                )?
                .query_map([now_ms, row_limit], claimed_message)?
                .filter(|row| !row.as_ref().is_ok_and(|message| leased.contains(&message.id)))
                .take(limit)
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut count = connection.prepare_cached("UPDATE messages SET attempts = ?2 WHERE id = ?1")?;
            for message in &messages {
                count.execute(params![message.id, message.attempt])?;
            }
            let next_due_ms = connection
                .prepare_cached("SELECT min(due_ms) FROM messages WHERE due_ms > ?1")?
                .query_row([now_ms], |row| row.get(0))?;
            Ok(Claim { messages, next_due_ms })
        })
        .await
    }

    /// Deletes a message that was delivered.
    pub(super) async fn acknowledge(&self, id: i64) -> Result<(), StoreError> {
        self.call(move |connection| delete(connection, id)).await
    }

    /// Sets the due time of a message that is to be delivered again.
    pub(super) async fn reschedule(&self, id: i64, due_ms: i64) -> Result<(), StoreError> {
        self.call(move |connection| {
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
        self.call(move |connection| {
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
        self.call(|connection| {
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
    // FULL syncs every commit to disk before it returns.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// Runs batches of jobs in transactions until the [`Store`] is dropped. The thread of the file runs this
/// function.
fn run_jobs(connection: &Connection, mut receiver: mpsc::Receiver<Job>) {
    while let Some(first) = receiver.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(next) = receiver.try_recv()
        {
            batch.push(next);
        }
        match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
            Ok(transaction) => {
                let replies: Vec<Reply> = batch.into_iter().map(|job| job(Ok(&transaction))).collect();
                let committed = transaction.commit().map_err(StoreError::from);
                for reply in replies {
                    reply(committed.clone());
                }
            }
            Err(error) => {
                let error = StoreError::from(error);
                for job in batch {
                    job(Err(error.clone()))(Ok(()));
                }
            }
        }
    }
}

fn delete(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
    Ok(())
}

fn claimed_message(row: &rusqlite::Row<'_>) -> rusqlite::Result<ClaimedMessage> {
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

fn to_json(attributes: &BTreeMap<String, String>) -> rusqlite::Result<String> {
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
        self.call(query).await.unwrap()
    }

    /// Returns the number of attempts and the reason of a dead letter.
    pub(super) async fn dead_letter(&self, id: i64) -> Option<(u32, String)> {
        let query = move |connection: &Connection| {
            let sql = "SELECT attempts, reason FROM dead WHERE id = ?1";
            connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        self.call(query).await.unwrap()
    }
}
