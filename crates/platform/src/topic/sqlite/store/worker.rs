//! A [`Worker`] is the state of the thread that runs the jobs of a [`Store`](super::Store).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, watch};

use super::{
    super::{MessageKey, database::Database},
    StoreError,
};
use crate::panic::CaughtPanic;

/// Maximum number of jobs per transaction.
pub(super) const MAX_JOBS_PER_TRANSACTION: usize = 256;

/// A unit of work for the store's thread. It is called with the connection in an open transaction, or with
/// the error that prevented the transaction.
pub(super) type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> JobResult + Send>;
/// Sends the result of a job to its caller. It is called with the result of the commit.
pub(super) type SendResult = Box<dyn FnOnce(Result<(), StoreError>)>;

pub(super) struct JobResult {
    pub(super) send: SendResult,
    /// True if the job failed because the file is damaged.
    pub(super) found_damage: bool,
}

/// Counts how often messages may have been lost. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct LossCounter(watch::Sender<u64>);

impl LossCounter {
    pub(super) fn increment(&self) {
        self.0.send_modify(|losses| *losses += 1);
        metrics::counter!("topic_losses_total").increment(1);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// The state of the store's thread.
pub(super) struct Worker {
    pub(super) path: PathBuf,
    pub(super) message_key: MessageKey,
    /// The open file, or `None` after its damage or loss.
    pub(super) database: Option<Database>,
    /// Highest id that a message has had. A new file continues with higher ids, because the outcome of a
    /// delivery that is still in progress must not change another message.
    pub(super) highest_id: i64,
    pub(super) losses: LossCounter,
}

impl Worker {
    /// Runs jobs in transactions until the [`Store`] is dropped.
    pub(super) fn run_jobs(&mut self, mut job_receiver: mpsc::Receiver<Job>) {
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
                self.losses.increment();
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

/// Runs `work`, and undoes its changes if it fails or panics. The other jobs of the same transaction keep theirs.
pub(super) fn run_in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    // A panic must not end the thread, because no other thread can run the jobs that follow.
    let result = match catch_unwind(AssertUnwindSafe(|| work(connection))) {
        Ok(result) => result.map_err(StoreError::from),
        Err(payload) => Err(CaughtPanic::new(&*payload).into()),
    };
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
