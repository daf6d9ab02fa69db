//! [`ForeignOutput`] turns what libraries write to stderr into lines of the log.
//!
//! The drivers of a GPU write plain text to stderr, which would stand between the JSON lines of the log.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
    thread,
};

/// Maximum number of bytes of a line. The rest of a longer line becomes a line of its own.
const MAX_LINE_BYTES: u64 = 1 << 10;

/// The stderr of this process, to which the log writes its JSON lines. It is unset if the log is for people.
static LOG_STDERR: OnceLock<OwnedFd> = OnceLock::new();

/// Duplicates stderr, so that the log reaches it while a [`ForeignOutput`] exists.
pub(super) fn duplicate_stderr() -> io::Result<File> {
    io::stderr().as_fd().try_clone_to_owned().map(File::from)
}

/// Allows [`ForeignOutput::redirect_to_log`] to redirect stderr. The log must write to a duplicate of it.
pub(super) fn allow_redirection() {
    // Without a duplicate that restores stderr, it is never redirected.
    if let Ok(stderr) = duplicate_stderr() {
        let _ = LOG_STDERR.set(stderr.into());
    }
}

/// While this value exists, each line that a library writes to stderr is a line of the log, at the level `DEBUG`.
///
/// If the process is aborted meanwhile, the last lines may be missing.
#[derive(Debug)]
pub struct ForeignOutput {
    stderr: &'static OwnedFd,
}

impl ForeignOutput {
    /// Redirects stderr to the log. Returns `None` if the log is not JSON, or stderr cannot be redirected.
    ///
    /// Only one value may exist at a time, because dropping any of them ends the redirection.
    pub fn redirect_to_log() -> Option<Self> {
        let stderr = LOG_STDERR.get()?;
        match redirect() {
            Ok(()) => Some(Self { stderr }),
            Err(error) => {
                tracing::warn!(%error, "stderr cannot be redirected to the log");
                None
            }
        }
    }
}

impl Drop for ForeignOutput {
    fn drop(&mut self) {
        if let Err(error) = rustix::stdio::dup2_stderr(self.stderr) {
            tracing::warn!(%error, "stderr cannot be restored");
        }
    }
}

fn redirect() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    // The thread ends when stderr is restored, which closes the last writer.
    thread::Builder::new().name("stderr".to_owned()).spawn(move || log_lines(BufReader::new(reader)))?;
    Ok(rustix::stdio::dup2_stderr(writer)?)
}

/// Logs each line of `output` until its end.
fn log_lines(mut output: impl BufRead) {
    let mut line = Vec::new();
    while let Ok(1..) = (&mut output).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        tracing::debug!(text = text.trim_end(), "a library wrote to stderr");
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::CapturedLog;

    #[test]
    fn each_line_of_a_library_is_a_line_of_the_log_and_a_long_one_is_split() {
        let log = CapturedLog::start("debug");
        let long = "x".repeat(3000);
        log_lines(format!("error: a\n\n\u{1b}[1m{long}").as_bytes());
        let lines = log.take_lines();
        let lines: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!((&lines[0]["text"], &lines[0]["severity"]), (&"error: a".into(), &"DEBUG".into()));
        assert_eq!(lines[1]["text"], "");
        let rest: String = lines[2..].iter().map(|line| line["text"].as_str().unwrap()).collect();
        assert!(rest.ends_with(&"x".repeat(1000)), "{rest}");
    }
}
