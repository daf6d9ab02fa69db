//! Markdown tables, and the files in `docs/benchmarks` that keep them.

use std::fs;

use crate::repository;

/// Formats a table; an absent cell becomes a dash. All columns but the first are right-aligned.
pub fn table(
    columns: impl IntoIterator<Item = impl AsRef<str>>,
    rows: impl IntoIterator<Item = impl IntoIterator<Item = impl Into<Option<String>>>>,
) -> String {
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let columns: Vec<String> = columns.into_iter().map(|column| column.as_ref().to_owned()).collect();
    let rule = format!("|---|{}", "--:|".repeat(columns.len() - 1));
    let rows = rows.into_iter().map(|cells| {
        let cells: Vec<Option<String>> = cells.into_iter().map(Into::into).collect();
        assert_eq!(cells.len(), rule.matches('|').count() - 1, "{cells:?}");
        line(cells.into_iter().map(|cell| cell.unwrap_or("–".to_owned())).collect())
    });
    [line(columns), rule.clone()].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

/// Replaces the section with the same heading in a file of `docs/benchmarks`, or appends it.
///
/// `title` replaces everything before the first section.
pub fn write_section(file: &str, title: &str, section: &str) {
    let file = repository().join("docs/benchmarks").join(file);
    let old = fs::read_to_string(&file).unwrap_or_default();
    let mut sections: Vec<String> =
        old.split("\n## ").skip(1).map(|rest| format!("## {}\n", rest.trim_end())).collect();
    let heading = section.lines().next();
    match sections.iter_mut().find(|old| old.lines().next() == heading) {
        Some(old) => section.clone_into(old),
        None => sections.push(section.to_owned()),
    }
    fs::write(file, format!("{title}\n{}", sections.join("\n"))).unwrap();
}
