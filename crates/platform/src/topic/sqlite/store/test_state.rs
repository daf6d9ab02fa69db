//! Functions with which tests look at the stored messages.

use rusqlite::{Connection, OptionalExtension};

use super::{Store, StoreError};

/// Numbers of messages in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::topic::sqlite) struct TopicStats {
    /// Number of published messages that are not yet acknowledged.
    pub(in crate::topic::sqlite) pending: u64,
    /// Number of dead letters, which are no longer delivered.
    pub(in crate::topic::sqlite) dead: u64,
}

/// State of a waiting message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::topic::sqlite) struct MessageState {
    pub(in crate::topic::sqlite) due_ms: i64,
    pub(in crate::topic::sqlite) attempts: u32,
    pub(in crate::topic::sqlite) failures: u32,
    pub(in crate::topic::sqlite) suspect: bool,
}

impl Store {
    pub(in crate::topic::sqlite) async fn stats(&self) -> Result<TopicStats, StoreError> {
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
    pub(in crate::topic::sqlite) async fn state(&self, id: i64) -> Option<MessageState> {
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
    pub(in crate::topic::sqlite) async fn dead_letter(&self, id: i64) -> Option<(u32, String)> {
        let query = move |connection: &Connection| {
            let sql = "SELECT attempts, reason FROM dead WHERE id = ?1";
            connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        self.run_in_transaction(query).await.unwrap()
    }
}
