//! Lists the objects below a folder in the order of their names.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::{
    TEMP_FOLDER_NAME,
    folder::{EntryKind, Folder},
};
use crate::bucket::ObjectName;

/// Minimum number of entries that a scan of a folder remembers.
///
/// A folder without objects contributes nothing to a page. With a smaller number, a page behind many such
/// folders would need many scans.
pub(super) const MIN_BATCH_LENGTH: usize = 1024;

/// Returns the first `limit` names of objects below `root` that are greater than `after`, in ascending byte
/// order.
///
/// The order of the entries in a directory is unknown, so each call reads every entry of the directories
/// along the path to the page. The call remembers at most `limit`, or [`MIN_BATCH_LENGTH`] if that is more,
/// entries per level of folders.
pub(super) fn list(
    root: &Folder,
    after: Option<&ObjectName>,
    limit: usize,
) -> Result<Vec<ObjectName>, Errno> {
    let mut page = Page {
        after: after.map_or("", ObjectName::as_str),
        limit,
        names: Vec::with_capacity(limit.min(1024)),
    };
    if limit > 0 {
        page.visit(root, "")?;
    }
    Ok(page.names)
}

struct Page<'a> {
    /// Only names that are greater are listed. No name is empty, so the empty text lists every name.
    after: &'a str,
    limit: usize,
    names: Vec<ObjectName>,
}

impl Page<'_> {
    /// Adds the objects in `folder`, whose names begin with `prefix`, until the page is full.
    fn visit(&mut self, folder: &Folder, prefix: &str) -> Result<(), Errno> {
        let mut last_visited = None;
        loop {
            let batch_length = (self.limit - self.names.len()).max(MIN_BATCH_LENGTH);
            let batch = self.next_batch(folder, prefix, last_visited.as_deref(), batch_length)?;
            let is_last_batch = batch.len() < batch_length;
            for path in batch {
                match path.strip_prefix(prefix).and_then(|key| key.strip_suffix('/')) {
                    Some(folder_name) => match folder.open_folder(folder_name) {
                        Ok(subfolder) => self.visit(&subfolder, &path)?,
                        // The folder was removed or replaced in the meantime.
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                        Err(error) => return Err(error),
                    },
                    None => self.names.extend(ObjectName::new(path.as_str())),
                }
                if self.names.len() == self.limit {
                    return Ok(());
                }
                last_visited = Some(path);
            }
            if is_last_batch {
                return Ok(());
            }
        }
    }

    /// Returns the first `batch_length` paths of the entries in `folder` that are greater than `last_visited`
    /// and may lead to names of the page.
    ///
    /// The path of a folder ends with `/`. So paths have the same order as the names of the objects that they
    /// lead to: `a.b` comes before the folder `a/`.
    fn next_batch(
        &self,
        folder: &Folder,
        prefix: &str,
        last_visited: Option<&str>,
        batch_length: usize,
    ) -> Result<BTreeSet<String>, Errno> {
        let mut batch = BTreeSet::new();
        folder.for_each_entry(|name, kind| {
            let path = match kind {
                EntryKind::File => format!("{prefix}{name}"),
                EntryKind::Folder => format!("{prefix}{name}/"),
                EntryKind::SymbolicLink | EntryKind::Special => return,
            };
            let is_temp_folder = prefix.is_empty() && name == TEMP_FOLDER_NAME;
            let is_on_page = path.as_str() > self.after
                || (kind == EntryKind::Folder && self.after.starts_with(path.as_str()));
            let is_visited = last_visited.is_some_and(|last_visited| path.as_str() <= last_visited);
            // A name that breaks a rule of `ObjectName` is not an object. Neither is anything below it.
            let is_object_name = || ObjectName::new(path.strip_suffix('/').unwrap_or(&path)).is_ok();
            if !is_temp_folder && is_on_page && !is_visited && is_object_name() {
                batch.insert(path);
                if batch.len() > batch_length {
                    batch.pop_last();
                }
            }
        })?;
        Ok(batch)
    }
}
