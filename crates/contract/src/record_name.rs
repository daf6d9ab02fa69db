//! The names of records, which are predictions and embeddings.

use crate::ModelKey;

/// Base name of predictions, whose file name is `prediction.json`.
pub const PREDICTION: &str = "prediction";
/// Base name of embeddings, whose file name is `embedding.json`.
pub const EMBEDDING: &str = "embedding";
/// Base names of all kinds of records.
pub const RECORD_BASE_NAMES: [&str; 2] = [PREDICTION, EMBEDDING];

/// Returns the file name of a record.
///
/// The first model that makes a record of this kind of an image stores the record as `BASE.json`. Each later model
/// `key` stores its own record as `BASE.NAME-CHECKSUM8.json`, so that no record is overwritten. `key` is `None` for the
/// first model.
pub(crate) fn record_file_name(base_name: &str, key: Option<&ModelKey>) -> String {
    match key {
        None => format!("{base_name}.json"),
        Some(key) => format!("{base_name}.{key}.json"),
    }
}

/// Returns true if `file_name` is the file name of a record, or `.` and such a name follow a prefix.
pub(crate) fn is_record_file_name(file_name: &str) -> bool {
    let Some(stem) = file_name.strip_suffix(".json") else { return false };
    RECORD_BASE_NAMES.iter().any(|base_name| {
        stem.match_indices(base_name).any(|(start, _)| {
            let (prefix, rest) = (&stem[..start], &stem[start + base_name.len()..]);
            let is_later_model = || rest.strip_prefix('.').is_some_and(|key| key.parse::<ModelKey>().is_ok());
            (prefix.is_empty() || prefix.ends_with('.')) && (rest.is_empty() || is_later_model())
        })
    })
}
