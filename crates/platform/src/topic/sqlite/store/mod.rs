//! A [`Store`] keeps the messages of a topic in an SQLite file. One thread reads and writes the file.
//!
//! The thread runs jobs in transactions. All jobs that arrive during a transaction run in the next
//! transaction. Under load, many messages therefore share one fsync. Without load, a message does not wait
//! for others.
//!
//! If the file is removed, replaced or found to be damaged, the thread opens a new file before the next
//! transaction, and reports that messages may be lost.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    MessageKey,
    database::{Database, SCHEMA_VERSION},
};
use crate::topic::Message;

/// Maximum number of jobs per transaction.
const MAX_JOBS_PER_TRANSACTION: usize = 256;
/// Number of jobs that can wait for the thread. A further caller waits until there is room.
const JOB_QUEUE_CAPACITY: usize = MAX_JOBS_PER_TRANSACTION;
/// Maximum number of messages that [`Store::count_ahead`] counts, so that the count takes at most about a
/// millisecond.
const MAX_COUNTED_AHEAD: u32 = 10_000;

/// Value of the column `delivery` of a message that is not being delivered.
const IDLE: i64 = 0;
/// Value of the column `delivery` of a message that is being delivered together with others.
const DELIVERED_TOGETHER: i64 = 1;
/// Value of the column `delivery` of a message that is being delivered while no other message is.
const DELIVERED_ALONE: i64 = 2;

/// Reason why a job failed. The type is `Clone`, because a failed commit is the error of every job in the
/// transaction.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("SQLite failed")]
    Sqlite(#[from] Arc<rusqlite::Error>),
    #[error("the file of the topic cannot be accessed")]
    Io(#[from] Arc<io::Error>),
    #[error("the file of the topic is damaged: {0}")]
    Damaged(String),
    #[error(
        "the file of the topic has the schema version {found}, but this program knows only version {known}"
    )]
    UnknownVersion { found: i64, known: i64 },
    #[error("the thread of the topic's file has ended")]
    Closed,
}

impl StoreError {
    /// Returns true if the error means that the content of the file is damaged.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Sqlite(error) => means_damage(error),
            Self::Io(_) | Self::UnknownVersion { .. } | Self::Closed => false,
        }
    }
}

fn means_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// A unit of work for the store's thread. It is called with the connection in an open transaction, or with
/// the error that prevented the transaction.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> JobResult + Send>;
/// Sends the result of a job to its caller. It is called with the result of the commit.
type SendResult = Box<dyn FnOnce(Result<(), StoreError>)>;

struct JobResult {
    send: SendResult,
    /// True if the job failed because the file is damaged.
    found_damage: bool,
}

/// A message that the pusher has claimed for delivery.
#[derive(Clone, Debug)]
pub(super) struct ClaimedMessage {
    pub(super) id: i64,
    pub(super) message: Message,
    /// Time of publication, in milliseconds since the Unix epoch.
    pub(super) published_ms: i64,
    /// Number of the delivery attempt. The first attempt is 1.
    pub(super) attempt: u32,
    /// Number of earlier attempts that failed because of the message itself.
    pub(super) failures: u32,
    /// Reason of the last of these failures.
    pub(super) last_failure: Option<String>,
    /// Time since when the message is due, in milliseconds since the Unix epoch.
    pub(super) due_ms: i64,
}

/// Parameters of [`Store::claim`].
#[derive(Debug)]
pub(super) struct ClaimRequest {
    pub(super) now_ms: i64,
    /// The current time plus the maximum backoff. A later due time means that the clock was set back, and the
    /// message becomes due at once.
    pub(super) latest_valid_due_ms: i64,
    /// Time when the pusher started. The suspects wait for the other messages that were due by then.
    pub(super) started_ms: i64,
    /// Ids of the messages that the pusher is delivering. They are not claimed again.
    pub(super) leased_ids: HashSet<i64>,
    /// Maximum number of claimed messages.
    pub(super) limit: usize,
}

/// Result of [`Store::claim`].
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) messages: Vec<ClaimedMessage>,
    /// True if the only claimed message is a suspect, which must be delivered alone.
    pub(super) is_alone: bool,
    /// Earliest due time of the messages that are not due yet.
    pub(super) next_due_ms: Option<i64>,
}

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
    losses: watch::Receiver<u64>,
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
        let (loss_sender, losses) = watch::channel(0);
        let highest_id = database.highest_id()?;
        let mut worker =
            Worker { path, message_key, database: Some(database), highest_id, losses: loss_sender };
        let (job_sender, job_receiver) = mpsc::channel(JOB_QUEUE_CAPACITY);
        thread::Builder::new().name("topic".to_owned()).spawn(move || worker.run_jobs(job_receiver))?;
        Ok(Self { job_sender, losses })
    }

    /// Returns the number of times that messages may have been lost, because the file was removed, replaced
    /// or damaged.
    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.clone()
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

    /// Makes suspects of the messages whose delivery a crash interrupted.
    ///
    /// Adds a failure to a message that was being delivered alone. `compute_pause_ms` returns the pause before
    /// its next delivery from its id and its number of failures. Returns the number of suspects.
    pub(super) async fn recover_interrupted(
        &self,
        now_ms: i64,
        compute_pause_ms: impl Fn(i64, u32) -> i64 + Send + 'static,
    ) -> Result<usize, StoreError> {
        self.run_in_transaction(move |connection| {
            let interrupted = connection
                .prepare_cached("SELECT id, delivery, failures FROM messages WHERE delivery != 0")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(i64, i64, u32)>>>()?;
            for &(id, delivery, failures) in &interrupted {
                let (failures, due_ms, reason) = if delivery == DELIVERED_ALONE {
                    let failures = failures.saturating_add(1);
                    let due_ms = now_ms.saturating_add(compute_pause_ms(id, failures));
                    (failures, due_ms, Some("the process ended during the delivery"))
                } else {
                    (failures, now_ms, None)
                };
                connection
                    .prepare_cached(
                        "UPDATE messages SET suspect = 1, delivery = ?2, failures = ?3, due_ms = ?4,
                         last_failure = coalesce(?5, last_failure) WHERE id = ?1",
                    )?
                    .execute(params![id, IDLE, failures, due_ms, reason])?;
            }
            Ok(interrupted.len())
        })
        .await
    }

    /// Makes a crash during the delivery of a lone suspect count no more than any other.
    pub(super) async fn pardon_lone_delivery(&self) -> Result<(), StoreError> {
        self.run_in_transaction(|connection| {
            connection
                .prepare_cached("UPDATE messages SET delivery = ?2 WHERE suspect = 1 AND delivery = ?1")?
                .execute([DELIVERED_ALONE, DELIVERED_TOGETHER])?;
            Ok(())
        })
        .await
    }

    /// Claims messages that are due, in the order of their due times.
    ///
    /// If a suspect is next, claims only the suspect, and only if no message is leased. Otherwise claims up to
    /// `limit` messages that are not suspects.
    ///
    /// The claim is stored before the delivery, so that a crash during the delivery is noticed.
    pub(super) async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        let ClaimRequest { now_ms, latest_valid_due_ms, started_ms, leased_ids, limit } = request;
        self.run_in_transaction(move |connection| {
            connection
                .prepare_cached("UPDATE messages SET due_ms = ?1 WHERE due_ms > ?2")?
                .execute([now_ms, latest_valid_due_ms])?;
            // Leased messages are still due, so the query returns them, too. The filter skips them, and
            // `row_limit` leaves room for them.
            let row_limit = i64::try_from(limit + leased_ids.len()).unwrap_or(i64::MAX);
            let mut messages = connection
                .prepare_cached(
                    "SELECT id, data, attributes, published_ms, attempts + 1, failures, last_failure, due_ms
                     FROM messages WHERE due_ms <= ?1 AND suspect = 0 ORDER BY due_ms, id LIMIT ?2",
                )?
                .query_map([now_ms, row_limit], parse_claimed_message)?
                .filter(|row| !row.as_ref().is_ok_and(|message| leased_ids.contains(&message.id)))
                .take(limit)
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let suspect = connection
                .prepare_cached(
                    "SELECT id, data, attributes, published_ms, attempts + 1, failures, last_failure, due_ms
                     FROM messages WHERE due_ms <= ?1 AND suspect = 1 ORDER BY due_ms, id LIMIT 1",
                )?
                .query_row([now_ms], parse_claimed_message)
                .optional()?;
            let mut is_alone = false;
            if let Some(suspect) = suspect
                && is_turn_of_suspect(&suspect, messages.first(), started_ms)
            {
                // Until the other deliveries have ended, nothing is claimed.
                is_alone = leased_ids.is_empty();
                messages = if is_alone { vec![suspect] } else { Vec::new() };
            }
            let delivery = if is_alone { DELIVERED_ALONE } else { DELIVERED_TOGETHER };
            let mut mark = connection
                .prepare_cached("UPDATE messages SET attempts = ?2, delivery = ?3 WHERE id = ?1")?;
            for message in &messages {
                mark.execute(params![message.id, message.attempt, delivery])?;
            }
            let next_due_ms = connection
                .prepare_cached("SELECT min(due_ms) FROM messages WHERE due_ms > ?1")?
                .query_row([now_ms], |row| row.get(0))?;
            Ok(Claim { messages, is_alone, next_due_ms })
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
            let oldest_published_ms = connection
                .prepare_cached("SELECT published_ms FROM messages ORDER BY id LIMIT 1")?
                .query_row([], |row| row.get(0))
                .optional()?;
            let due_since_ms = connection
                .prepare_cached(
                    "SELECT due_ms FROM messages WHERE due_ms <= ?1 AND suspect = 0 AND delivery = 0
                     ORDER BY due_ms, id LIMIT 1",
                )?
                .query_row([now_ms], |row| row.get(0))
                .optional()?;
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

/// Returns true if `suspect` is delivered before `other`, the first of the other due messages.
///
/// The messages that were due when the pusher started go first, so that a message that crashes the process
/// does not keep them from being delivered. After that, the due time decides.
fn is_turn_of_suspect(suspect: &ClaimedMessage, other: Option<&ClaimedMessage>, started_ms: i64) -> bool {
    other.is_none_or(|other| {
        other.due_ms > started_ms && (suspect.due_ms, suspect.id) < (other.due_ms, other.id)
    })
}

/// The state of the store's thread.
struct Worker {
    path: PathBuf,
    message_key: MessageKey,
    /// The open file, or `None` after its damage or loss.
    database: Option<Database>,
    /// Highest id that a message has had. A new file continues with higher ids, because the outcome of a
    /// delivery that is still in progress must not change another message.
    highest_id: i64,
    losses: watch::Sender<u64>,
}

impl Worker {
    /// Runs jobs in transactions until the [`Store`] is dropped.
    fn run_jobs(&mut self, mut job_receiver: mpsc::Receiver<Job>) {
        while let Some(first) = job_receiver.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_JOBS_PER_TRANSACTION
                && let Ok(next) = job_receiver.try_recv()
            {
                batch.push(next);
            }
            self.run_batch(batch);
        }
    }

    fn run_batch(&mut self, batch: Vec<Job>) {
        let (results, committed, last_id) = run_transaction(self.connection(), batch);
        self.highest_id = self.highest_id.max(last_id);
        let found_damage = results.iter().any(|result| result.found_damage);
        self.close_if(found_damage || committed.as_ref().is_err_and(StoreError::is_damage));
        for result in results {
            (result.send)(committed.clone());
        }
    }

    /// Returns the open file. Opens the file again if it is lost.
    fn connection(&mut self) -> Result<&Connection, StoreError> {
        if self.database.as_ref().is_some_and(|database| !database.is_in_place()) {
            tracing::error!(path = ?self.path, "the file of the topic was removed or replaced");
            // The old connection is closed before the new one is opened, because closing removes the log.
            self.database = None;
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = Database::open(&self.path, self.message_key)?;
                database.reserve_ids_up_to(self.highest_id)?;
                self.losses.send_modify(|losses| *losses += 1);
                metrics::counter!("topic_losses_total").increment(1);
                database
            }
        };
        Ok(&self.database.insert(database).connection)
    }

    /// Closes a damaged file, so that the next transaction replaces it.
    fn close_if(&mut self, is_damaged: bool) {
        if is_damaged {
            tracing::error!(path = ?self.path, "the file of the topic is damaged");
            self.database = None;
        }
    }
}

/// Runs jobs in one transaction.
///
/// Returns the results of the jobs, the result of the commit and the id of the last inserted row. If there is no
/// transaction, the jobs get the error, and the result of the commit is `Ok`.
fn run_transaction(
    connection: Result<&Connection, StoreError>,
    batch: Vec<Job>,
) -> (Vec<JobResult>, Result<(), StoreError>, i64) {
    let begun = connection
        .and_then(|connection| Ok(Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?));
    match begun {
        Ok(transaction) => {
            let results = batch.into_iter().map(|job| job(Ok(&transaction))).collect();
            let last_id = transaction.last_insert_rowid();
            (results, transaction.commit().map_err(StoreError::from), last_id)
        }
        Err(error) => (batch.into_iter().map(|job| job(Err(error.clone()))).collect(), Ok(()), 0),
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

/// Parses the data and the attributes of a message, which are in two columns from `first_column` on.
pub(super) fn parse_message(row: &rusqlite::Row<'_>, first_column: usize) -> rusqlite::Result<Message> {
    let attributes: String = row.get(first_column + 1)?;
    Ok(Message {
        data: Bytes::from(row.get::<_, Vec<u8>>(first_column)?),
        attributes: serde_json::from_str(&attributes).map_err(|error| {
            let column_type = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(first_column + 1, column_type, error.into())
        })?,
    })
}

fn parse_claimed_message(row: &rusqlite::Row<'_>) -> rusqlite::Result<ClaimedMessage> {
    Ok(ClaimedMessage {
        id: row.get(0)?,
        message: parse_message(row, 1)?,
        published_ms: row.get(3)?,
        attempt: row.get(4)?,
        failures: row.get(5)?,
        last_failure: row.get(6)?,
        due_ms: row.get(7)?,
    })
}

fn attributes_to_json(attributes: &BTreeMap<String, String>) -> rusqlite::Result<String> {
    serde_json::to_string(attributes).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Numbers of messages in a topic.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicStats {
    /// Number of published messages that are not yet acknowledged.
    pub(super) pending: u64,
    /// Number of dead letters, which are no longer delivered.
    pub(super) dead: u64,
}

/// State of a waiting message.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MessageState {
    pub(super) due_ms: i64,
    pub(super) attempts: u32,
    pub(super) failures: u32,
    pub(super) suspect: bool,
}

#[cfg(test)]
impl Store {
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

    /// Returns the state of a waiting message.
    pub(super) async fn state(&self, id: i64) -> Option<MessageState> {
        let query = move |connection: &Connection| {
            let sql = "SELECT due_ms, attempts, failures, suspect FROM messages WHERE id = ?1";
            connection
                .query_row(sql, [id], |row| {
                    let (due_ms, attempts) = (row.get(0)?, row.get(1)?);
                    Ok(MessageState { due_ms, attempts, failures: row.get(2)?, suspect: row.get(3)? })
                })
                .optional()
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
