//! Downloads a model's ONNX file and checks its size and SHA-256.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::spec::PublishedFile;

/// Timeouts of a download.
///
/// The default timeouts for connecting and for the response header are short, so that a build without a
/// network connection loses only seconds.
#[derive(Debug, Clone)]
pub struct FetchTimeouts {
    /// Timeout for resolving the host name. The same timeout then applies to connecting to the server.
    pub connect: Duration,
    /// Timeout for receiving the response header.
    pub response: Duration,
    /// Timeout for each read from the body.
    pub read: Duration,
    /// Timeout for the whole download from one URL.
    pub total: Duration,
}

impl Default for FetchTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            response: Duration::from_secs(10),
            read: Duration::from_secs(15),
            total: Duration::from_secs(600),
        }
    }
}

/// The reason why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// `model.toml` has no URL.
    #[error("key `onnx.urls` of the model's model.toml is empty")]
    NoUrl,
    /// Another file has appeared at the target.
    #[error("{} exists and is another file, which is not overwritten; move it to another folder first", .0.display())]
    TargetExists(PathBuf),
    /// No URL delivered the file. The value holds one message per URL, in the order of the URLs.
    #[error("{}", .0.join("; "))]
    AllUrlsFailed(Vec<String>),
    /// The file cannot be written to its folder.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// A function that is called with the number of bytes received so far and the expected total.
pub type ProgressCallback<'a> = &'a mut dyn FnMut(u64, u64);

/// Downloads the file that `expected` describes to `target`, trying each URL in order.
///
/// The body is written to a separate file (`<target>.<unique>.part`), which becomes `target` after its
/// size and SHA-256 are checked. A reader therefore never sees an incomplete file, and concurrent builds do
/// not disturb each other. No file is created before a server has sent a response header. An existing file is
/// never overwritten.
///
/// # Errors
/// Returns [`FetchError::NoUrl`] if `expected` has no URL, [`FetchError::AllUrlsFailed`] if no URL delivered
/// the right file, [`FetchError::TargetExists`] if `target` is another file, and [`FetchError::Write`] if the
/// file cannot be written.
pub fn fetch(
    expected: &PublishedFile,
    target: &Path,
    timeouts: &FetchTimeouts,
    report_progress: ProgressCallback<'_>,
) -> Result<(), FetchError> {
    if expected.urls.is_empty() {
        return Err(FetchError::NoUrl);
    }
    let mut failures = Vec::new();
    for url in &expected.urls {
        match fetch_from_url(url, expected, target, timeouts, report_progress) {
            Ok(()) => return Ok(()),
            Err(AttemptError::GiveUp(error)) => return Err(error),
            Err(AttemptError::TryNextUrl(reason)) => failures.push(format!("{url}: {reason}")),
        }
    }
    Err(FetchError::AllUrlsFailed(failures))
}

/// The failure of a download from one URL.
enum AttemptError {
    /// The URL did not deliver the file, so the next URL is tried. The message is the reason.
    TryNextUrl(String),
    /// The file cannot be written, so no other URL is tried.
    GiveUp(FetchError),
}

fn fetch_from_url(
    url: &str,
    expected: &PublishedFile,
    target: &Path,
    timeouts: &FetchTimeouts,
    report_progress: ProgressCallback<'_>,
) -> Result<(), AttemptError> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_recv_response(Some(timeouts.response))
            .timeout_per_read(Some(timeouts.read))
            .timeout_global(Some(timeouts.total))
            // `model.toml` states the size and checksum of the uncompressed file.
            .accept_encoding("identity")
            .build(),
    );
    let mut response = agent.get(url).call().map_err(|error| AttemptError::TryNextUrl(error.to_string()))?;
    let body = response.body_mut();
    if let Some(length) = body.content_length()
        && length != expected.size
    {
        return Err(AttemptError::TryNextUrl(format!(
            "the server offers {length} bytes, expected {}",
            expected.size
        )));
    }
    let partial_file = PartialFile::create(target).map_err(AttemptError::GiveUp)?;
    let sha256 = partial_file.receive(&mut body.as_reader(), expected.size, report_progress)?;
    if sha256 != expected.sha256 {
        return Err(AttemptError::TryNextUrl(format!(
            "the SHA-256 of the body is {sha256}, expected {}",
            expected.sha256
        )));
    }
    partial_file.persist(expected).map_err(AttemptError::GiveUp)
}

/// An incomplete file, which is removed when this value is dropped.
struct PartialFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl PartialFile {
    fn create(target: &Path) -> Result<Self, FetchError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let mut path = target.as_os_str().to_owned();
        path.push(format!(".{}-{}.part", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let path = PathBuf::from(path);
        match File::create_new(&path) {
            Ok(file) => Ok(Self { file, path, target: target.into() }),
            Err(source) => Err(FetchError::Write { path, source }),
        }
    }

    /// Writes the body, which must have `size` bytes, to the file and returns the SHA-256 of the body.
    fn receive(
        &self,
        body: &mut dyn Read,
        size: u64,
        report_progress: ProgressCallback<'_>,
    ) -> Result<String, AttemptError> {
        let mut hasher = Sha256::new();
        let mut received = 0;
        let mut buffer = vec![0; 64 * 1024];
        report_progress(0, size);
        loop {
            let count = body.read(&mut buffer).map_err(|error| {
                AttemptError::TryNextUrl(format!(
                    "reading the body failed after {received} of {size} bytes: {error}"
                ))
            })?;
            if count == 0 {
                break;
            }
            received += count as u64;
            if received > size {
                return Err(AttemptError::TryNextUrl(format!(
                    "the body has more than the expected {size} bytes"
                )));
            }
            hasher.update(&buffer[..count]);
            (&self.file).write_all(&buffer[..count]).map_err(|source| self.write_error(source))?;
            report_progress(received, size);
        }
        if received < size {
            return Err(AttemptError::TryNextUrl(format!("the body ended after {received} of {size} bytes")));
        }
        Ok(hex::encode(hasher.finalize()))
    }

    /// Flushes the file to the disk and gives it the name of the target, unless the target exists.
    fn persist(self, expected: &PublishedFile) -> Result<(), FetchError> {
        let write_error = |source| FetchError::Write { path: self.target.clone(), source };
        self.file.sync_all().map_err(write_error)?;
        // Unlike a rename, a link does not replace a file. Not every file system has links.
        let link = fs::hard_link(&self.path, &self.target);
        if link.is_ok() {
            return Ok(());
        }
        if self.target.symlink_metadata().is_err() {
            return fs::rename(&self.path, &self.target).map_err(write_error);
        }
        // A concurrent build has fetched the same file.
        let is_the_same = size_and_sha256(&self.target)
            .is_ok_and(|(size, sha256)| size == expected.size && sha256 == expected.sha256);
        if is_the_same { Ok(()) } else { Err(FetchError::TargetExists(self.target.clone())) }
    }

    fn write_error(&self, source: io::Error) -> AttemptError {
        AttemptError::GiveUp(FetchError::Write { path: self.path.clone(), source })
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // Fails if `persist` has renamed the file.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the size of a file in bytes and its SHA-256 in hexadecimal.
///
/// # Errors
/// Returns an [`io::Error`] if the file cannot be read.
pub fn size_and_sha256(path: &Path) -> io::Result<(u64, String)> {
    let mut reader = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}
