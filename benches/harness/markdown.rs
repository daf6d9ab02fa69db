//! Formats Markdown tables and writes them to files in `docs/benchmarks`.

use std::fs;

use crate::repository;

/// Formats a table. A cell that is `None` becomes a dash. All columns except the first are right-aligned.
pub fn table(
    columns: impl IntoIterator<Item = impl AsRef<str>>,
    rows: impl IntoIterator<Item = impl IntoIterator<Item = impl Into<Option<String>>>>,
) -> String {
    let format_row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let columns: Vec<String> = columns.into_iter().map(|column| column.as_ref().to_owned()).collect();
    let rule = format!("|---|{}", "--:|".repeat(columns.len() - 1));
    let rows = rows.into_iter().map(|cells| {
        let cells: Vec<Option<String>> = cells.into_iter().map(Into::into).collect();
        assert_eq!(
            cells.len(),
            rule.matches('|').count() - 1,
            "number of cells (left) is not the number of columns (right): {cells:?}"
        );
        format_row(cells.into_iter().map(|cell| cell.unwrap_or("–".to_owned())).collect())
    });
    [format_row(columns), rule.clone()].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

/// Writes `section` to the file `file_name` in `docs/benchmarks`.
///
/// The section replaces the section that has the same heading, or is appended if there is none. `title`
/// replaces everything before the first section.
pub fn write_section(file_name: &str, title: &str, section: &str) {
    let path = repository().join("docs/benchmarks").join(file_name);
    let old_text = fs::read_to_string(&path).unwrap_or_default();
    let mut sections: Vec<String> =
        old_text.split("\n## ").skip(1).map(|rest| format!("## {}\n", rest.trim_end())).collect();
    let heading = section.lines().next();
    match sections.iter_mut().find(|existing| existing.lines().next() == heading) {
        Some(existing) => section.clone_into(existing),
        None => sections.push(section.to_owned()),
    }
    fs::write(path, format!("{title}\n{}", sections.join("\n"))).unwrap();
}
