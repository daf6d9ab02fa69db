//! Reads the labels file, which has one line per class, in the order of the network's outputs.
//!
//! A line is `n01440764<TAB>tench` (WordNet id and label) or only `tench`. Labels need not be unique:
//! ImageNet uses "crane" both for the bird and for the machine.

use std::fs;
use std::path::Path;

use crate::Error;

/// Maximum size of a labels file in bytes.
const MAX_FILE_SIZE: u64 = 64 << 20;

/// A class of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// WordNet id such as `n01440764`, or an empty string if the line has only a label.
    pub wnid: String,
    /// Human-readable name of the class.
    pub name: String,
}

/// Formats the content of a labels file, which [`read`] reads back.
#[must_use]
pub fn format(labels: &[Label]) -> String {
    let format_line = |Label { wnid, name }: &Label| match wnid.as_str() {
        "" => format!("{name}\n"),
        wnid => format!("{wnid}\t{name}\n"),
    };
    labels.iter().map(format_line).collect()
}

/// Reads the labels of a model.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be read, and [`Error::InvalidLabels`] if the file is empty or has
/// a line without a label. An empty line is an error, because skipping it would shift the labels after it.
pub fn read(labels_path: &Path) -> Result<Vec<Label>, Error> {
    let invalid = |(line, reason): (Option<usize>, &str)| Error::InvalidLabels {
        labels_path: labels_path.into(),
        line,
        reason: reason.into(),
    };
    let size = fs::metadata(labels_path).map_err(Error::io("read", labels_path))?.len();
    if size > MAX_FILE_SIZE {
        return Err(invalid((None, "the file is larger than 64 MiB, expected one line per class")));
    }
    let text = fs::read_to_string(labels_path).map_err(Error::io("read", labels_path))?;
    parse(&text).map_err(invalid)
}

fn parse(text: &str) -> Result<Vec<Label>, (Option<usize>, &'static str)> {
    // Some editors begin a file with a byte order mark.
    let labels: Vec<Label> = text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let (wnid, name) = line.split_once('\t').unwrap_or(("", line));
            let (wnid, name) = (wnid.trim(), name.trim());
            if name.is_empty() {
                let reason =
                    "the line has no label, expected `label` or `wordnet-id<TAB>label` on every line";
                return Err((Some(index + 1), reason));
            }
            Ok(Label { wnid: wnid.into(), name: name.into() })
        })
        .collect::<Result<_, _>>()?;
    if labels.is_empty() {
        return Err((
            None,
            "the file has no labels; expected one line per class, in the order of the outputs",
        ));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_wordnet_id_are_read() {
        let labels = parse("n01440764\ttench\nplain cat\r\n").unwrap();
        assert_eq!(labels[0].wnid, "n01440764");
        assert_eq!(labels[0].name, "tench");
        assert_eq!(labels[1].wnid, "");
        assert_eq!(labels[1].name, "plain cat");
        assert_eq!(parse(&format(&labels)), Ok(labels));
    }

    #[test]
    fn line_without_a_label_is_refused_with_its_number() {
        assert_eq!(parse("a\n\nb\n").unwrap_err().0, Some(2));
        assert_eq!(parse("a\nn1\t\n").unwrap_err().0, Some(2));
    }

    #[test]
    fn byte_order_mark_is_not_part_of_the_first_label() {
        assert_eq!(parse("\u{feff}cat\ndog\n").unwrap()[0].name, "cat");
    }

    #[test]
    fn file_that_is_too_large_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("labels.txt");
        fs::File::create(&path).unwrap().set_len(MAX_FILE_SIZE + 1).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("larger than 64 MiB"));
    }

    #[test]
    fn empty_file_is_refused_without_a_line_number() {
        assert_eq!(parse("").unwrap_err().0, None);
    }
}
