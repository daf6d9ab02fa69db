//! The servers: how each is started, asked, and ended.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use classify::{backend::Backend, model::spec};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Subject, load::Connection, machine::memory, peers_folder, repository, skipped, worker::python};

/// A bound on a hang at the start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether a server is ready.
const POLL: Duration = Duration::from_millis(1);

/// The command that serves on a port of this machine and keeps what it writes in a folder.
type Serve = Box<dyn Fn(u16, &Path) -> Command>;

/// A server that classifies a JPEG.
pub(crate) struct Server {
    pub(crate) name: String,
    /// Whether it is this project's.
    pub(crate) ours: bool,
    command: Serve,
    /// What answers 200 once images are taken.
    ready: &'static str,
    /// The request with the picture.
    pub(crate) request: Vec<u8>,
    /// The label in the answer to it.
    label: fn(&Value) -> Option<String>,
}

/// Every server that is there, this project's first.
pub(crate) fn all(subject: &Subject, notes: &mut Vec<String>) -> Vec<Server> {
    let mut servers = vec![ours(subject)];
    match &subject.onnx {
        Some(onnx) if python("fastapi_app.py").is_some() => {
            servers.extend([1, 2].map(|threads| fastapi(subject, onnx, threads)));
        }
        Some(_) => skipped(notes, "FastAPI: benches/peers/install gets it"),
        None => {}
    }
    match furnace(subject) {
        Some(server) => servers.push(server),
        None => {
            let what =
                format!("furnace with {}: a long build, by benches/peers/install --with-furnace", spec::NAME);
            skipped(notes, &what);
        }
    }
    servers
}

/// The program of this package, as it comes: preprocess runs in it, too.
fn ours(subject: &Subject) -> Server {
    let backend = Backend::default();
    let command = move |port: u16, folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-pipeline"));
        command
            .args(["--host", "127.0.0.1", "--preprocess-port", "0", "--log", "warn"])
            .args(["--classify-port", &port.to_string(), "--classify-backend", backend.name(), "--data-dir"])
            .arg(folder)
            .stdout(Stdio::null());
        command
    };
    Server {
        name: format!("this project: image-pipeline, {backend}"),
        ours: true,
        command: Box::new(command),
        ready: "/ready",
        request: post("/classify", &subject.jpeg),
        label: named_label,
    }
}

/// FastAPI, Pillow and onnxruntime: `fastapi_app.py`.
fn fastapi(subject: &Subject, onnx: &Path, threads: usize) -> Server {
    let onnx = onnx.to_owned();
    let command = move |port: u16, _: &Path| {
        let mut command = python("fastapi_app.py").unwrap();
        let labels = repository().join("models").join(spec::NAME).join("labels.txt");
        command.arg(&onnx).arg(labels).args([port.to_string(), threads.to_string()]);
        command
    };
    let of_run = if threads == 1 { "a thread a run" } else { "both threads in a run" };
    Server {
        name: format!("FastAPI + Pillow + onnxruntime, {of_run}"),
        ours: false,
        command: Box::new(command),
        ready: "/ready",
        request: post("/classify", &subject.jpeg),
        label: named_label,
    }
}

/// furnace from its published crates, as it comes, if it was built with this model.
fn furnace(subject: &Subject) -> Option<Server> {
    let program = peers_folder().join("bin/furnace");
    let says = |flag: &str| {
        let output = Command::new(&program).arg(flag).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let models = says("--help")?.split_once("Available models: ")?.1.lines().next()?.to_owned();
    if models.split(", ").all(|model| model.trim() != spec::NAME) {
        return None;
    }
    let name = says("--version")?.trim().to_owned();
    let command = move |port: u16, _: &Path| {
        let mut command = Command::new(&program);
        command.args(["--model-name", spec::NAME, "--log-level", "warn", "--port", &port.to_string()]);
        command
    };
    Some(Server {
        name,
        ours: false,
        command: Box::new(command),
        ready: "/readyz",
        request: post("/predict", &subject.jpeg),
        label: label_of_largest,
    })
}

fn named_label(answer: &Value) -> Option<String> {
    Some(answer["label"].as_str()?.to_owned())
}

/// The label of an answer that is just the network's outputs.
fn label_of_largest(answer: &Value) -> Option<String> {
    let outputs = answer["output"].as_array()?.iter().map(|output| output.as_f64().unwrap());
    let (largest, _) = outputs.enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let (_, label) = spec::LABELS.get(largest)?;
    Some((*label).to_owned())
}

fn post(path: &str, jpeg: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        jpeg.len()
    );
    [head.as_bytes(), jpeg].concat()
}

/// A server that runs, and ends with this.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From the start of the process to the first answer that it is ready.
    pub(crate) until_ready: Duration,
    /// From the start of the process to the first label.
    pub(crate) until_label: Duration,
    /// The first label.
    pub(crate) label: String,
    _folder: TempDir,
}

impl Server {
    /// Starts the server on a fresh folder and waits for its first label.
    pub(crate) fn start(&self) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let ready = format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", self.ready);
        let mut command = (self.command)(address.port(), folder.path());
        let start = Instant::now();
        let child = command.spawn().unwrap();
        // From here on a panic ends the process.
        let mut running = Running {
            child,
            address,
            until_ready: Duration::ZERO,
            until_label: Duration::ZERO,
            label: String::new(),
            _folder: folder,
        };
        while !running.answers(ready.as_bytes()) {
            assert!(start.elapsed() < PATIENCE, "{} is not ready", self.name);
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("{} ended: {status}", self.name);
            }
            thread::sleep(POLL);
        }
        running.until_ready = start.elapsed();
        let (status, body) = Connection::open(address).unwrap().ask(&self.request).unwrap();
        running.until_label = start.elapsed();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200, "{}: {answer}", self.name);
        running.label = (self.label)(&answer).unwrap();
        running
    }
}

impl Running {
    fn answers(&self, request: &[u8]) -> bool {
        let answer = Connection::open(self.address).and_then(|mut connection| connection.ask(request));
        matches!(answer, Ok((200, _)))
    }

    /// Resident memory, now and at its most, in MB.
    pub(crate) fn memory(&self) -> (f64, f64) {
        memory(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already was told where it was missed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
