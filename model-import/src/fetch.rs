//! Fetching a model's ONNX file: once, checked by size and SHA-256 before it gets its name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::spec::OnnxFile;

/// How long to wait for what. A machine without network must lose seconds, not minutes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For resolving the host's name, and again for connecting.
    pub connect: Duration,
    /// For the answer's header.
    pub response: Duration,
    /// Longest pause between two pieces of the body.
    pub stall: Duration,
    /// For everything, one address.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            response: Duration::from_secs(10),
            stall: Duration::from_secs(15),
            total: Duration::from_secs(600),
        }
    }
}

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// `model.toml` gives no address.
    #[error("its model.toml gives no address to fetch it from")]
    NoAddress,
    /// No address gave the file; one line for each.
    #[error("{}", .0.join("; "))]
    Addresses(Vec<String>),
    /// The file cannot be written where it belongs.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file in question.
        path: PathBuf,
        /// Why the system refused.
        source: io::Error,
    },
}

/// Told about progress: bytes so far, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Fetches the file to `target`.
///
/// The body goes to a file of its own (`<target>.<unique>.part`) that is renamed when size and sum are
/// right, so a reader never sees half a file and two builds at once do not disturb each other. Until
/// the first address has answered, nothing is written at all.
///
/// # Errors
/// No address gave the right file, or the target cannot be written.
pub fn fetch(
    onnx: &OnnxFile,
    target: &Path,
    limits: &Limits,
    progress: Progress<'_>,
) -> Result<(), FetchError> {
    if onnx.urls.is_empty() {
        return Err(FetchError::NoAddress);
    }
    let mut failures = Vec::new();
    for url in &onnx.urls {
        match fetch_from(url, onnx, target, limits, progress) {
            Ok(()) => return Ok(()),
            Err(Attempt::Fatal(error)) => return Err(error),
            Err(Attempt::Address(reason)) => failures.push(format!("{url}: {reason}")),
        }
    }
    Err(FetchError::Addresses(failures))
}

/// Whether the next address is worth a try.
enum Attempt {
    Address(String),
    Fatal(FetchError),
}

fn fetch_from(
    url: &str,
    onnx: &OnnxFile,
    target: &Path,
    limits: &Limits,
    progress: Progress<'_>,
) -> Result<(), Attempt> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.response))
            .timeout_per_read(Some(limits.stall))
            .timeout_global(Some(limits.total))
            // Size and sum are those of the plain file.
            .accept_encoding("identity")
            .build(),
    );
    let mut response = agent.get(url).call().map_err(|error| Attempt::Address(error.to_string()))?;
    let body = response.body_mut();
    if let Some(length) = body.content_length()
        && length != onnx.size
    {
        return Err(Attempt::Address(format!("it answers with {length} bytes, expected {}", onnx.size)));
    }
    let part = Part::create(target).map_err(Attempt::Fatal)?;
    let received = part.receive(&mut body.as_reader(), onnx.size, progress)?;
    if received != onnx.sha256 {
        return Err(Attempt::Address(format!("its SHA-256 is {received}, expected {}", onnx.sha256)));
    }
    part.keep().map_err(Attempt::Fatal)
}

/// The unfinished file; dropping it removes it.
struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Part {
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

    /// Writes exactly `size` bytes of the body; gives their SHA-256.
    fn receive(&self, body: &mut dyn Read, size: u64, progress: Progress<'_>) -> Result<String, Attempt> {
        let mut sum = Sha256::new();
        let mut done = 0;
        let mut buffer = vec![0; 64 * 1024];
        progress(0, size);
        loop {
            let count = body.read(&mut buffer).map_err(|error| {
                Attempt::Address(format!("it broke off after {done} of {size} bytes: {error}"))
            })?;
            if count == 0 {
                break;
            }
            done += count as u64;
            if done > size {
                return Err(Attempt::Address(format!("it sends more than the {size} bytes expected")));
            }
            sum.update(&buffer[..count]);
            (&self.file).write_all(&buffer[..count]).map_err(|source| self.write_error(source))?;
            progress(done, size);
        }
        if done < size {
            return Err(Attempt::Address(format!("it broke off after {done} of {size} bytes")));
        }
        Ok(hex::encode(sum.finalize()))
    }

    fn keep(self) -> Result<(), FetchError> {
        let write_error = |source| FetchError::Write { path: self.target.clone(), source };
        self.file.sync_all().map_err(write_error)?;
        fs::rename(&self.path, &self.target).map_err(write_error)
    }

    fn write_error(&self, source: io::Error) -> Attempt {
        Attempt::Fatal(FetchError::Write { path: self.path.clone(), source })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After `keep` there is nothing under this name any more, and nothing to report.
        let _ = fs::remove_file(&self.path);
    }
}

/// Size in bytes and SHA-256 in hexadecimal of a file.
///
/// # Errors
/// The file cannot be read.
pub fn measure(file: &Path) -> io::Result<(u64, String)> {
    let mut reader = File::open(file)?;
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, hex::encode(sum.finalize())));
        }
        sum.update(&buffer[..count]);
        size += count as u64;
    }
}
