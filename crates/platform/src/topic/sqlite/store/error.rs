//! [`StoreError`] is the reason why a job of the store failed.

use std::{io, sync::Arc};

use rusqlite::ErrorCode;

use crate::panic::CaughtPanic;

/// Reason why a job failed. The type is `Clone`, because a failed commit is the error of every job in the
/// transaction.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::topic::sqlite) enum StoreError {
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
    #[error("a job on the topic's file failed")]
    Panicked(#[from] CaughtPanic),
}

impl StoreError {
    /// Returns true if the error means that the content of the file is damaged.
    pub(in crate::topic::sqlite) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Sqlite(error) => means_damage(error),
            Self::Io(_) | Self::UnknownVersion { .. } | Self::Closed | Self::Panicked(_) => false,
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
