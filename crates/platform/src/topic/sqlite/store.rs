//! The file of a topic, behind one thread of its own.
//!
//! Whatever was asked while the last transaction was written goes into the next one together: under
//! load many messages share one fsync, and a lone one waits for nobody.

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

use super::{Message, TopicError, TopicStats};

/// So many requests go into one transaction at most.
const MAX_BATCH: usize = 256;
/// How long another process may hold the file before that is an error.
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

/// Why the file did not do what it was asked. One failed commit is told to everybody in it.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("SQLite")]
    Sqlite(#[from] Arc<rusqlite::Error>),
    #[error("the thread that writes the file is gone")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<StoreError> for TopicError {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

/// Does its work within the transaction (or learns why there is none); what it gives back tells the
/// caller once that is committed.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), StoreError>)>;

/// A message that is to be delivered now.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) id: i64,
    pub(super) message: Message,
    pub(super) published_ms: i64,
    /// How often it was claimed, this time included.
    pub(super) attempt: u32,
}

/// What a look for messages found.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) claimed: Vec<Claimed>,
    /// When the next of the others is due.
    pub(super) next_ms: Option<i64>,
}

/// The file. The thread ends, and closes it, when this is dropped.
#[derive(Debug)]
pub(super) struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    pub(super) async fn open(path: &Path) -> Result<Self, TopicError> {
        let path = path.to_owned();
        match tokio::task::spawn_blocking(move || Self::open_blocking(path)).await {
            Ok(result) => result,
            Err(error) => Err(TopicError(error.into())),
        }
    }

    fn open_blocking(path: PathBuf) -> Result<Self, TopicError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| TopicError(error.into()))?;
        }
        let connection = connect(&path).map_err(|error| TopicError(error.into()))?;
        let (jobs, inbox) = mpsc::channel(MAX_BATCH);
        thread::Builder::new()
            .name("topic".to_owned())
            .spawn(move || work(&connection, inbox))
            .map_err(|error| TopicError(error.into()))?;
        Ok(Self { jobs })
    }

    /// Has `work` done in a transaction, and returns once that is durable.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = connection.and_then(|connection| Ok(work(connection)?));
            Box::new(move |committed| {
                // The caller may have left.
                let _ = answer.send(outcome.and_then(|value| committed.map(|()| value)));
            })
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }

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

    /// Takes up to `limit` messages that are due and not in `under_way`, oldest due time first, and
    /// counts the attempt: a message that kills its receiver and us with it must not do so for ever.
    ///
    /// A due time beyond `horizon_ms` was never set by the clock as it goes now (it was set back), so
    /// such a message is due at once.
    pub(super) async fn claim(
        &self,
        now_ms: i64,
        horizon_ms: i64,
        under_way: HashSet<i64>,
        limit: usize,
    ) -> Result<Due, StoreError> {
        self.call(move |connection| {
            connection
                .prepare_cached("UPDATE messages SET due_ms = ?1 WHERE due_ms > ?2")?
                .execute([now_ms, horizon_ms])?;
            // What is under way is due as well, so it is read along and left out here.
            let wanted = i64::try_from(limit + under_way.len()).unwrap_or(i64::MAX);
            let claimed = connection
                .prepare_cached(
                    "SELECT id, data, attributes, published_ms, attempts + 1 FROM messages
                     WHERE due_ms <= ?1 ORDER BY due_ms, id LIMIT ?2",
                )?
                .query_map([now_ms, wanted], to_claimed)?
                .filter(|row| !row.as_ref().is_ok_and(|found| under_way.contains(&found.id)))
                .take(limit)
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut count = connection.prepare_cached("UPDATE messages SET attempts = ?2 WHERE id = ?1")?;
            for found in &claimed {
                count.execute(params![found.id, found.attempt])?;
            }
            let next_ms = connection
                .prepare_cached("SELECT min(due_ms) FROM messages WHERE due_ms > ?1")?
                .query_row([now_ms], |row| row.get(0))?;
            Ok(Due { claimed, next_ms })
        })
        .await
    }

    /// The message is delivered.
    pub(super) async fn acknowledge(&self, id: i64) -> Result<(), StoreError> {
        self.call(move |connection| delete(connection, id)).await
    }

    /// The message is to be delivered again.
    pub(super) async fn postpone(&self, id: i64, due_ms: i64) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .prepare_cached("UPDATE messages SET due_ms = ?2 WHERE id = ?1")?
                .execute([id, due_ms])?;
            Ok(())
        })
        .await
    }

    /// The message is given up.
    pub(super) async fn bury(&self, id: i64, died_ms: i64, reason: String) -> Result<(), StoreError> {
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
    // FULL: a commit is on the disk before anybody is told of it.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// The thread: a batch, a transaction, the answers, until nobody can ask any more.
fn work(connection: &Connection, mut inbox: mpsc::Receiver<Job>) {
    while let Some(first) = inbox.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(next) = inbox.try_recv()
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

fn to_claimed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Claimed> {
    let attributes: String = row.get(2)?;
    Ok(Claimed {
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
    /// Due time and attempts of a message that still waits.
    pub(super) async fn due_and_attempts(&self, id: i64) -> Option<(i64, u32)> {
        let look = move |connection: &Connection| {
            let sql = "SELECT due_ms, attempts FROM messages WHERE id = ?1";
            connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        self.call(look).await.unwrap()
    }

    /// Attempts and reason of a message that was given up.
    pub(super) async fn dead(&self, id: i64) -> Option<(u32, String)> {
        let look = move |connection: &Connection| {
            let sql = "SELECT attempts, reason FROM dead WHERE id = ?1";
            connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        self.call(look).await.unwrap()
    }
}
