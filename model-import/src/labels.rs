//! The labels file: one class a line, in the order of the network's outputs.
//!
//! A line is `n01440764<TAB>tench` (WordNet id, label) or just `tench`. Labels need not be unique:
//! ImageNet itself has two cranes under some names.

use std::fs;
use std::path::Path;

use crate::Error;

/// One class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// WordNet id such as `n01440764`, empty where the file gives none.
    pub wnid: String,
    /// What people call it.
    pub name: String,
}

/// Reads the labels of a model.
///
/// # Errors
/// The file cannot be read, is empty, or has an empty line (only one at the end is allowed): an empty
/// line in the middle would shift every label after it.
pub fn read(file: &Path) -> Result<Vec<Label>, Error> {
    let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
    parse(&text).map_err(|(line, reason)| Error::Labels { file: file.into(), line, reason: reason.into() })
}

fn parse(text: &str) -> Result<Vec<Label>, (Option<usize>, &'static str)> {
    let labels: Vec<Label> = text
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let (wnid, name) = line.split_once('\t').unwrap_or(("", line));
            let (wnid, name) = (wnid.trim(), name.trim());
            if name.is_empty() {
                return Err((Some(index + 1), "the line has no label"));
            }
            Ok(Label { wnid: wnid.into(), name: name.into() })
        })
        .collect::<Result<_, _>>()?;
    if labels.is_empty() {
        return Err((None, "the file has no labels"));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_line_are_read() {
        let labels = parse("n01440764\ttench\nplain cat\r\n").unwrap();
        assert_eq!(labels[0].wnid, "n01440764");
        assert_eq!(labels[0].name, "tench");
        assert_eq!(labels[1].wnid, "");
        assert_eq!(labels[1].name, "plain cat");
    }

    #[test]
    fn an_empty_line_would_shift_the_rest_and_is_refused() {
        assert_eq!(parse("a\n\nb\n").unwrap_err().0, Some(2));
        assert_eq!(parse("a\nn1\t\n").unwrap_err().0, Some(2));
        assert!(parse("").is_err());
    }
}
