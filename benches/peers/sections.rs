//! The file that tables are kept in: a title, and a section for each way to build what was measured.

use std::{fs, path::Path};

/// Puts `section`, which begins with its heading, into `file` in place of an older one of the same
/// heading, and leaves the others.
pub(crate) fn write(file: &Path, title: &str, section: &str) {
    let old = fs::read_to_string(file).unwrap_or_default();
    let mut sections: Vec<String> =
        old.split("\n## ").skip(1).map(|rest| format!("## {}\n", rest.trim_end())).collect();
    let heading = section.lines().next();
    match sections.iter().position(|old| old.lines().next() == heading) {
        Some(place) => section.clone_into(&mut sections[place]),
        None => sections.push(section.to_owned()),
    }
    fs::write(file, format!("{title}\n{}", sections.join("\n"))).unwrap();
}
