//! Converts between messages and the columns of the tables.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, Row, params, types::FromSql};

use crate::topic::Message;

/// Error of a row that is not a message, because its file was damaged or changed by another program.
#[derive(Debug, thiserror::Error)]
#[error("the column {column} cannot be read")]
pub(in crate::topic::sqlite) struct UnreadableColumn {
    column: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Returns the value of a column.
pub(super) fn read_column<T: FromSql>(row: &Row<'_>, column: &'static str) -> Result<T, UnreadableColumn> {
    row.get(column).map_err(|error| {
        let source = match error {
            rusqlite::Error::FromSqlConversionFailure(_, _, source) => source,
            error => error.into(),
        };
        UnreadableColumn { column, source }
    })
}

/// Parses the columns `data` and `attributes`.
pub(in crate::topic::sqlite) fn parse_message(row: &Row<'_>) -> Result<Message, UnreadableColumn> {
    let data: Vec<u8> = read_column(row, "data")?;
    let attributes: String = read_column(row, "attributes")?;
    let attributes = serde_json::from_str(&attributes)
        .map_err(|error| UnreadableColumn { column: "attributes", source: error.into() })?;
    Ok(Message { data: Bytes::from(data), attributes })
}

pub(super) fn attributes_to_json(attributes: &BTreeMap<String, String>) -> rusqlite::Result<String> {
    serde_json::to_string(attributes).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Moves a row from the messages to the dead letters.
pub(super) fn move_to_dead_letters(
    connection: &Connection,
    id: i64,
    died_ms: i64,
    reason: &str,
) -> rusqlite::Result<()> {
    // In a damaged row, any column can be NULL, which the dead letters do not allow.
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO dead
             SELECT id, coalesce(data, x''), coalesce(attributes, ''), coalesce(published_ms, 0),
                    coalesce(attempts, 0), ?2, ?3
             FROM messages WHERE id = ?1",
        )?
        .execute(params![id, died_ms, reason])?;
    delete(connection, id)
}

/// Deletes a message.
pub(super) fn delete(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
    Ok(())
}
