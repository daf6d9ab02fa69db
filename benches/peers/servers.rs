//! Starts servers that classify a JPEG, measures each start, puts one server after the other under load and
//! formats the results as tables.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bench_harness::{
    Series, machine, markdown, milliseconds, peers_folder, python, report_skipped, repository,
};
use classify::{backend::Backend, model::spec};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Effort, Subject,
    load::{Connection, put_under_load},
};

/// Longest time that a server may take to become ready. Only a server that hangs reaches this timeout.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two readiness checks.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// The numbers of connections with which each server is measured.
const CONNECTION_COUNTS: [usize; 3] = [1, 8, 64];

/// A function of a port and a folder. It returns the command of a server that listens on the port and keeps
/// its files in the folder.
type ServerCommand = Box<dyn Fn(u16, &Path) -> Command>;

/// A server and its measurements.
struct Server {
    name: String,
    command: ServerCommand,
    /// Path of the readiness check, which answers 200 once the server accepts pictures.
    ready_path: &'static str,
    /// The request with the picture.
    request: Vec<u8>,
    /// Returns the label from the response to `request`.
    read_label: fn(&Value) -> Option<String>,
    /// Milliseconds from the start of the process to the first successful readiness check.
    until_ready: Series,
    /// Milliseconds from the start of the process to the first label.
    until_label: Series,
    /// One entry per number of connections, in the order of [`CONNECTION_COUNTS`].
    under_load: [LoadFigures; 3],
    /// Peak resident memory, in MB, of the process that is put under load.
    peak_memory: f64,
}

/// Figures of a server with one number of connections. Each round adds one figure to each series.
#[derive(Default)]
struct LoadFigures {
    /// Number of responses with status 200 per second.
    throughput: Series,
    /// Median duration of the requests in milliseconds.
    median_duration: Series,
    /// Duration in milliseconds that 95 % of the requests do not exceed.
    p95_duration: Series,
    /// Resident memory in MB halfway through the round.
    memory: Series,
    /// Number of responses with a status other than 200, in all rounds together.
    other_status_count: usize,
}

impl Server {
    fn new(
        name: impl Into<String>,
        command: impl Fn(u16, &Path) -> Command + 'static,
        [ready_path, classify_path]: [&'static str; 2],
        jpeg: &[u8],
        read_label: fn(&Value) -> Option<String>,
    ) -> Self {
        let head = format!(
            "POST {classify_path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n\
             Content-Length: {}\r\n\r\n",
            jpeg.len()
        );
        let (until_ready, until_label, under_load) = Default::default();
        Self {
            name: name.into(),
            command: Box::new(command),
            ready_path,
            request: [head.as_bytes(), jpeg].concat(),
            read_label,
            until_ready,
            until_label,
            under_load,
            peak_memory: 0.0,
        }
    }

    /// Starts the server in a new, empty folder and waits for its first label.
    fn start(&self) -> RunningServer {
        let folder = tempfile::tempdir().unwrap();
        // This finds a free port. Another program could bind the port before the server does.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ready_request = format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", self.ready_path);
        let send_once =
            |request: &[u8]| Connection::open(address).and_then(|mut connection| connection.send(request));

        let start = Instant::now();
        let child = (self.command)(port, folder.path()).spawn().unwrap();
        let (until_ready, until_label, label) = Default::default();
        // This value exists before the server is ready. So a panic below drops the value, which kills the
        // process.
        let mut running = RunningServer { child, address, until_ready, until_label, label, _folder: folder };
        while !matches!(send_once(ready_request.as_bytes()), Ok((200, _))) {
            assert!(start.elapsed() < START_TIMEOUT, "{} is not ready after {START_TIMEOUT:?}", self.name);
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("{} ended before it was ready: {status}", self.name);
            }
            thread::sleep(POLL_INTERVAL);
        }
        running.until_ready = start.elapsed();
        let (status, body) = send_once(&self.request).unwrap();
        running.until_label = start.elapsed();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200, "{}: {answer}", self.name);
        running.label = (self.read_label)(&answer).unwrap();
        running
    }
}

/// A server process that has given its first label. Dropping this value kills the process.
struct RunningServer {
    child: Child,
    address: SocketAddr,
    /// Time from the start of the process to the first successful readiness check.
    until_ready: Duration,
    /// Time from the start of the process to the first label.
    until_label: Duration,
    /// The first label.
    label: String,
    _folder: TempDir,
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns all installed servers, this project's server first.
fn installed_servers(subject: &Subject, notes: &mut Vec<String>) -> Vec<Server> {
    let mut servers = vec![our_server(subject)];
    match &subject.onnx_path {
        Some(onnx_path) if python("peers", "fastapi_app.py").is_some() => {
            servers.extend([1, 2].map(|threads| fastapi_server(subject, onnx_path, threads)));
        }
        Some(_) => report_skipped(notes, "FastAPI: benches/peers/install installs it"),
        None => {}
    }
    match furnace_server(subject) {
        Some(server) => servers.push(server),
        None => {
            let reason = "benches/peers/install --with-furnace installs it, in a long build";
            report_skipped(notes, &format!("furnace with {}: {reason}", spec::NAME));
        }
    }
    servers
}

/// Returns `image-pipeline` with its default settings. The preprocess service runs in the same process.
fn our_server(subject: &Subject) -> Server {
    let backend = Backend::default();
    let command = move |port: u16, folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peers-image-pipeline"));
        command
            .args(["--host", "127.0.0.1", "--preprocess-port", "0", "--log", "warn"])
            .args(["--classify-port", &port.to_string(), "--classify-backend", backend.name(), "--data-dir"])
            .arg(folder)
            .stdout(Stdio::null());
        command
    };
    let name = format!("this project: image-pipeline, {backend}");
    Server::new(name, command, ["/ready", "/classify"], &subject.jpeg, label_in_response)
}

/// Returns the server of `fastapi_app.py`, in which each run of the network uses `threads` threads.
fn fastapi_server(subject: &Subject, onnx_path: &Path, threads: usize) -> Server {
    let onnx_path = onnx_path.to_owned();
    let command = move |port: u16, _: &Path| {
        let mut command = python("peers", "fastapi_app.py").unwrap();
        let labels = repository().join("models").join(spec::NAME).join("labels.txt");
        command.arg(&onnx_path).arg(labels).args([port.to_string(), threads.to_string()]);
        command
    };
    let per_run = if threads == 1 { "one thread per run" } else { "both threads per run" };
    let name = format!("FastAPI + Pillow + onnxruntime, {per_run}");
    Server::new(name, command, ["/ready", "/classify"], &subject.jpeg, label_in_response)
}

/// Returns the server furnace with its default settings, or `None` if no furnace with this model is
/// installed.
fn furnace_server(subject: &Subject) -> Option<Server> {
    let program = peers_folder("peers").join("bin/furnace");
    let help = machine::output_of(program.to_str()?, &["--help"]);
    let model_names = help.split_once("Available models: ")?.1.lines().next()?;
    model_names.split(", ").find(|name| name.trim() == spec::NAME)?;
    let name = machine::output_of(program.to_str()?, &["--version"]);
    let command = move |port: u16, _: &Path| {
        let mut command = Command::new(&program);
        command.args(["--model-name", spec::NAME, "--log-level", "warn", "--port", &port.to_string()]);
        command
    };
    Some(Server::new(name, command, ["/readyz", "/predict"], &subject.jpeg, label_of_largest_output))
}

/// Returns the label that a response contains.
fn label_in_response(response: &Value) -> Option<String> {
    Some(response["label"].as_str()?.to_owned())
}

/// Returns the label for a response that contains only the outputs of the network.
fn label_of_largest_output(response: &Value) -> Option<String> {
    let outputs = response["output"].as_array()?.iter().map(|output| output.as_f64().unwrap());
    let (class_index, _) = outputs.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let (_, label) = spec::LABELS.get(class_index)?;
    Some((*label).to_owned())
}

/// Starts every server several times, then puts one server after the other under load. Returns the tables.
pub(crate) fn measure(subject: &Subject, effort: &Effort, notes: &mut Vec<String>) -> Vec<String> {
    let mut servers = installed_servers(subject, notes);
    // The first start is not measured, because it reads the server's files from the disk. Later starts read
    // the files from the page cache.
    let labels: Vec<String> = servers.iter().map(|server| server.start().label.clone()).collect();
    assert!(!labels[0].is_empty(), "{} gives an empty label", servers[0].name);
    assert!(labels.iter().all(|label| *label == labels[0]), "the servers give different labels: {labels:?}");
    for _ in 0..effort.start_count {
        for server in &mut servers {
            let running = server.start();
            server.until_ready.add(milliseconds(running.until_ready));
            server.until_label.add(milliseconds(running.until_label));
        }
    }

    // All servers run at the same time, but only one server at a time is under load.
    let running: Vec<RunningServer> = servers.iter().map(Server::start).collect();
    let read_memory = |running: &RunningServer| machine::process_memory(running.child.id());
    for _ in 0..effort.http_rounds {
        for (index, connection_count) in CONNECTION_COUNTS.into_iter().enumerate() {
            for (server, running) in servers.iter_mut().zip(&running) {
                let figures = &mut server.under_load[index];
                let record_memory = || figures.memory.add(read_memory(running).current);
                let load = put_under_load(
                    running.address,
                    &server.request,
                    connection_count,
                    effort.load_duration,
                    record_memory,
                );
                figures.throughput.add(load.throughput);
                figures.median_duration.add(load.durations.median());
                figures.p95_duration.add(load.durations.p95());
                figures.other_status_count += load.other_status_count;
            }
        }
    }
    for (server, running) in servers.iter_mut().zip(&running) {
        server.peak_memory = read_memory(running).peak;
    }
    [Some(figures_table(&servers)), ratio_table(&servers)].into_iter().flatten().collect()
}

/// Formats the table with the figures of all servers.
fn figures_table(servers: &[Server]) -> String {
    let mut columns = vec!["server".to_owned()];
    for connection_count in CONNECTION_COUNTS {
        columns.extend([format!("{connection_count} at once: answers/s"), "p50, p95 ms".to_owned()]);
    }
    columns.extend(["memory at 8, MB", "at most, MB", "ready, ms", "first label, ms"].map(str::to_owned));
    let rows = servers.iter().map(|server| {
        let mut row = vec![server.name.clone()];
        for LoadFigures { throughput, median_duration, p95_duration, other_status_count, .. } in
            &server.under_load
        {
            let other_statuses = match other_status_count {
                0 => String::new(),
                count => format!(", {count} with another status"),
            };
            row.push(throughput.median_and_max(0) + &other_statuses);
            row.push(format!("{:.1}, {:.1}", median_duration.median(), p95_duration.median()));
        }
        // Entry 1 is the load with 8 connections.
        row.push(format!("{:.0}", server.under_load[1].memory.median()));
        row.push(format!("{:.0}", server.peak_memory));
        row.extend([&server.until_ready, &server.until_label].map(|series| series.median_and_min(0)));
        row
    });
    format!("### HTTP: a JPEG of 224×224 to its label\n\n{}", markdown::table(columns, rows))
}

/// Formats the table that compares this project's throughput with the throughput of each peer.
///
/// Returns `None` if there are no peers.
fn ratio_table(servers: &[Server]) -> Option<String> {
    let [ours, peers @ ..] = servers else { return None };
    let columns = ["as".to_owned()].into_iter();
    let columns = columns.chain(CONNECTION_COUNTS.map(|count| format!("{count} at once")));
    let rows = peers.iter().map(|theirs| {
        let pairs = ours.under_load.iter().zip(&theirs.under_load);
        let ratios = pairs.map(|(ours, theirs)| ours.throughput.median() / theirs.throughput.median());
        [theirs.name.clone()].into_iter().chain(ratios.map(|ratio| format!("{ratio:.2}")))
    });
    let table = markdown::table(columns, rows);
    (!peers.is_empty()).then(|| format!("{}, answers/s, how many times as many:\n\n{table}", ours.name))
}
