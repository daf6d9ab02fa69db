//! A [`Database`] is the open SQLite file of a topic. Opening migrates the file, and replaces it if it is damaged.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    MessageKey, compute_key,
    store::{StoreError, parse_message},
};
use crate::{
    clock::unix_millis,
    private_folder::{create_private_folder, open_private_file},
};

/// Maximum time to wait for another process that has locked the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Version of the schema, which `PRAGMA user_version` of the file contains.
///
/// Version 0 is a file without a version, and also an empty file.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// Suffixes of the files that SQLite creates beside the database.
const COMPANION_SUFFIXES: [&str; 2] = ["-wal", "-shm"];

/// Tables of version 0, for waiting messages and for dead letters. Times are in milliseconds since the Unix
/// epoch.
///
/// Because of AUTOINCREMENT, the id of a deleted message is never used again.
const SCHEMA_V0: &str = "
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

/// Columns that version 1 adds.
///
/// `attempts` counts every push, and `failures` only the pushes that failed because of the message itself.
/// `delivery` is one of the constants in `store/claim.rs`. `suspect` is 1 if a crash interrupted the delivery
/// of the message. `key` is the text by which a publisher finds the message.
const ADD_COLUMNS_OF_V1: &str = "
    ALTER TABLE messages ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN last_failure TEXT;
    ALTER TABLE messages ADD COLUMN delivery INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN key TEXT;
    CREATE INDEX messages_key ON messages (key) WHERE key IS NOT NULL;
    CREATE INDEX messages_suspect ON messages (due_ms, id) WHERE suspect = 1;
";

/// The open file of a topic.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    /// Identity of the database and of its write-ahead log when they were opened.
    files: [Option<FileIdentity>; 2],
}

impl Database {
    /// Opens the file at `path`, and creates the file and its folder if they are missing.
    ///
    /// A damaged file is renamed to `<path>.damaged-<milliseconds since the Unix epoch>`, and a new file takes
    /// its place.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the file cannot be used, or has the schema of a newer program.
    pub(super) fn open(path: &Path, message_key: MessageKey) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            create_private_folder(folder)?;
        }
        if !path.try_exists()? {
            // SQLite would copy a log that belongs to another file into the new file.
            move_aside(path)?;
        }
        match Self::open_undamaged(path, message_key) {
            Err(error) if error.is_damage() => {
                let moved_to = move_aside(path)?;
                tracing::error!(
                    ?path,
                    ?moved_to,
                    %error,
                    "the file of the topic is damaged; a new file takes its place"
                );
                Self::open_undamaged(path, message_key)
            }
            result => result,
        }
    }

    fn open_undamaged(path: &Path, message_key: MessageKey) -> Result<Self, StoreError> {
        // SQLite gives its other files the permissions of this file.
        drop(open_private_file(path)?);
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // With FULL, a commit is synced to disk before it returns.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        let finding: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if finding != "ok" {
            return Err(StoreError::Damaged(finding));
        }
        migrate(&connection, message_key)?;
        let files = identify_files(path);
        Ok(Self { connection, path: path.to_owned(), files })
    }

    /// Returns true if the open files are still the files at their paths.
    pub(super) fn is_in_place(&self) -> bool {
        let current = identify_files(&self.path);
        // SQLite may create the log later than the database.
        self.files.iter().zip(&current).all(|(opened, current)| opened.is_none() || opened == current)
    }

    /// Returns the highest id that a message has had.
    pub(super) fn highest_id(&self) -> Result<i64, StoreError> {
        // SQLite reads a damaged number as 0, too, and then continues after the last message.
        let sql = "SELECT coalesce(CAST(seq AS INTEGER), 0) FROM sqlite_sequence WHERE name = 'messages'";
        Ok(self.connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or_default())
    }

    /// Makes all new messages have ids above `id`.
    pub(super) fn reserve_ids_up_to(&self, id: i64) -> Result<(), StoreError> {
        let raised = self
            .connection
            .execute("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'messages'", [id])?;
        if raised == 0 {
            self.connection
                .execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', ?1)", [id])?;
        }
        Ok(())
    }
}

/// Brings the file to [`SCHEMA_VERSION`] in one transaction.
fn migrate(connection: &Connection, message_key: MessageKey) -> Result<(), StoreError> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        0 => {
            transaction.execute_batch(SCHEMA_V0)?;
            migrate_from_0(&transaction, message_key)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        SCHEMA_VERSION => {}
        _ => return Err(StoreError::UnknownVersion { found, known: SCHEMA_VERSION }),
    }
    Ok(transaction.commit()?)
}

/// Adds the columns of version 1, revives the dead letters, and fills in the keys.
///
/// Version 0 also counted refused pushes as failures, and recorded nowhere that a message had become a dead
/// letter. Its dead letters are therefore delivered again. After a failed write, version 0 could keep a message
/// that had also become a dead letter. Such a message is delivered once.
///
/// A row that is not a message gets no key. The first claim moves it to the dead letters.
fn migrate_from_0(transaction: &Transaction<'_>, message_key: MessageKey) -> Result<(), StoreError> {
    transaction.execute_batch(ADD_COLUMNS_OF_V1)?;
    let revived = transaction.execute(
        "INSERT OR IGNORE INTO messages (id, data, attributes, published_ms, due_ms)
         SELECT id, data, attributes, published_ms, ?1 FROM dead",
        [unix_millis(SystemTime::now())],
    )?;
    transaction.execute("DELETE FROM dead", [])?;
    if revived > 0 {
        tracing::info!(revived, "the dead letters of an earlier version are delivered again");
    }
    let mut select = transaction.prepare("SELECT id, data, attributes FROM messages")?;
    let mut set_key = transaction.prepare("UPDATE messages SET key = ?2 WHERE id = ?1")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(message) = parse_message(row)
            && let Some(key) = compute_key(message_key, &message)
        {
            set_key.execute(params![row.get::<_, i64>("id")?, key])?;
        }
    }
    Ok(())
}

/// Renames the database and its companions, as far as they exist, and returns the new path of the database.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let moved_to = with_suffix(path, &format!(".damaged-{}", unix_millis(SystemTime::now())));
    for suffix in [""].into_iter().chain(COMPANION_SUFFIXES) {
        match fs::rename(with_suffix(path, suffix), with_suffix(&moved_to, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(moved_to)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Device and inode of a file. The inode is not reused while the file is open.
#[cfg(unix)]
type FileIdentity = (u64, u64);
/// Other systems do not remove an open file.
#[cfg(not(unix))]
type FileIdentity = ();

/// Returns the identities of the database and of its write-ahead log, or `None` for a missing file.
fn identify_files(path: &Path) -> [Option<FileIdentity>; 2] {
    ["", "-wal"].map(|suffix| {
        let metadata = fs::metadata(with_suffix(path, suffix)).ok()?;
        Some(identity(&metadata))
    })
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> FileIdentity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_metadata: &fs::Metadata) -> FileIdentity {}
