//! Fetching from a server that behaves, and from some that do not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common;
use model_import::fetch::{FetchError, FetchTimeouts, fetch};
use model_import::spec::OnnxFile;
use tempfile::TempDir;

const BODY: &[u8] = b"these are the weights of a very small network indeed";

fn short_timeouts() -> FetchTimeouts {
    FetchTimeouts {
        connect: Duration::from_secs(2),
        response: Duration::from_millis(300),
        read: Duration::from_millis(300),
        total: Duration::from_secs(20),
    }
}

/// Answers one connection with `answer` and gives the address.
fn serve(answer: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        answer(stream);
    });
    format!("http://{address}/model.onnx")
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
}

/// Sends text and bytes; a client that hung up in the middle is part of some tests.
fn send(mut stream: &TcpStream, head: &str, body: &[u8]) {
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn file(urls: &[String]) -> OnnxFile {
    OnnxFile {
        file: "model.onnx".into(),
        size: BODY.len() as u64,
        sha256: common::sha256(BODY),
        urls: urls.to_vec(),
    }
}

struct Fetched {
    outcome: Result<(), FetchError>,
    target: PathBuf,
    folder: TempDir,
    progress: Vec<(u64, u64)>,
}

fn fetch_from(urls: &[String]) -> Fetched {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("model.onnx");
    let mut progress = Vec::new();
    let outcome = fetch(&file(urls), &target, &short_timeouts(), &mut |done, total| progress.push((done, total)));
    Fetched { outcome, target, folder, progress }
}

/// The fetch failed with a reason that has `part` in it, and left nothing behind.
fn fails_with(part: &str, urls: &[String]) {
    let fetched = fetch_from(urls);
    let error = fetched.outcome.unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
    assert!(error.contains("http://127.0.0.1"), "{error}");
    assert_eq!(common::names(fetched.folder.path()), Vec::<String>::new());
}

#[test]
fn a_good_file_is_kept() {
    let url = serve(|stream| send(&stream, &head(BODY.len()), BODY));
    let fetched = fetch_from(&[url]);
    fetched.outcome.unwrap();
    assert_eq!(fs::read(&fetched.target).unwrap(), BODY);
    assert_eq!(common::names(fetched.folder.path()), ["model.onnx"]);
    let size = BODY.len() as u64;
    assert_eq!(fetched.progress.first(), Some(&(0, size)));
    assert_eq!(fetched.progress.last(), Some(&(size, size)));
}

#[test]
fn a_redirect_is_followed() {
    let real = serve(|stream| send(&stream, &head(BODY.len()), BODY));
    let moved =
        format!("HTTP/1.1 302 Found\r\nlocation: {real}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let url = serve(move |stream| send(&stream, &moved, b""));
    fetch_from(&[url]).outcome.unwrap();
}

#[test]
fn the_next_address_is_tried() {
    let gone = serve(|stream| send(&stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", b""));
    let good = serve(|stream| send(&stream, &head(BODY.len()), BODY));
    fetch_from(&[gone, good]).outcome.unwrap();
}

#[test]
fn a_wrong_sum_is_refused() {
    let url = serve(|stream| send(&stream, &head(BODY.len()), &[b'x'; BODY.len()]));
    fails_with("its SHA-256 is", &[url]);
}

#[test]
fn another_length_is_refused_before_the_body() {
    let url = serve(|stream| send(&stream, &head(BODY.len() + 1), BODY));
    fails_with(&format!("it answers with {} bytes", BODY.len() + 1), &[url]);
}

#[test]
fn a_body_without_end_is_not_read_to_its_end() {
    let url = serve(|stream| {
        send(&stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", BODY);
        // Until the client hangs up.
        while (&stream).write_all(&[0; 1024]).is_ok() {}
    });
    fails_with("it sends more than", &[url]);
}

#[test]
fn a_connection_that_breaks_is_an_error() {
    let url = serve(|stream| send(&stream, &head(BODY.len()), &BODY[..10]));
    fails_with("it broke off after 10", &[url]);
    let url = serve(|stream| send(&stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &BODY[..10]));
    fails_with("it broke off after 10", &[url]);
}

/// Sends `text` and then nothing, holding the connection until the test is over.
fn stalling_server(text: String) -> (String, mpsc::Sender<()>) {
    let (over, wait) = mpsc::channel::<()>();
    let url = serve(move |stream| {
        send(&stream, &text, b"");
        // Ends when the sender is dropped.
        let _ = wait.recv();
    });
    (url, over)
}

#[test]
fn a_server_that_says_nothing_is_left() {
    let (url, _over) = stalling_server(String::new());
    fails_with("timeout", &[url]);
}

#[test]
fn a_server_that_stops_in_the_middle_is_left() {
    let (url, _over) = stalling_server(format!("{}these are", head(BODY.len())));
    fails_with("it broke off after 9", &[url]);
}

#[test]
fn without_an_address_nothing_is_tried() {
    let fetched = fetch_from(&[]);
    assert!(matches!(fetched.outcome, Err(FetchError::NoUrl)));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let url = serve(|stream| send(&stream, &head(BODY.len()), BODY));
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("absent/model.onnx");
    let error = fetch(&file(&[url]), &target, &short_timeouts(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, FetchError::Write { path, .. } if path.starts_with(folder.path())), "{error}");
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("model.onnx");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let url = serve(|stream| send(&stream, &head(BODY.len()), BODY));
                fetch(&file(&[url]), &target, &short_timeouts(), &mut |_, _| {}).unwrap();
            });
        }
    });
    assert_eq!(fs::read(&target).unwrap(), BODY);
    assert_eq!(common::names(folder.path()), ["model.onnx"]);
}
