//! Tests fetching from servers that behave correctly and from servers that do not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common;
use model_import::fetch::{FetchError, FetchTimeouts, fetch};
use model_import::spec::PublishedFile;
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

/// Starts a server that reads one request and then calls `respond`. Returns the URL of the server.
fn serve(respond: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        respond(stream);
    });
    format!("http://{address}/model.onnx")
}

/// Returns the header of a response with a body of `length` bytes.
fn response_head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
}

/// Sends a response. Ignores errors, because in some tests the client closes the connection early.
fn send(mut stream: &TcpStream, head: &str, body: &[u8]) {
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Describes a file with the content [`BODY`] at these URLs.
fn expected_file(urls: &[String]) -> PublishedFile {
    PublishedFile { size: BODY.len() as u64, sha256: common::compute_sha256(BODY), urls: urls.to_vec() }
}

/// The result of fetching to a file in a new folder.
struct Fetched {
    outcome: Result<(), FetchError>,
    target: PathBuf,
    folder: TempDir,
    /// The numbers of received and expected bytes in each call of the progress callback.
    progress: Vec<(u64, u64)>,
}

fn fetch_from(urls: &[String]) -> Fetched {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("model.onnx");
    let mut progress = Vec::new();
    let outcome = fetch(&expected_file(urls), &target, &short_timeouts(), &mut |received, total| {
        progress.push((received, total))
    });
    Fetched { outcome, target, folder, progress }
}

/// Checks that fetching fails with a message that contains `part`, and leaves no file behind.
fn assert_fails_with(part: &str, urls: &[String]) {
    let fetched = fetch_from(urls);
    let error = fetched.outcome.unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
    assert!(error.contains("http://127.0.0.1"), "{error}");
    assert_eq!(common::file_names(fetched.folder.path()), Vec::<String>::new());
}

#[test]
fn file_with_the_right_checksum_is_stored() {
    let url = serve(|stream| send(&stream, &response_head(BODY.len()), BODY));
    let fetched = fetch_from(&[url]);
    fetched.outcome.unwrap();
    assert_eq!(fs::read(&fetched.target).unwrap(), BODY);
    assert_eq!(common::file_names(fetched.folder.path()), ["model.onnx"]);
    let size = BODY.len() as u64;
    assert_eq!(fetched.progress.first(), Some(&(0, size)));
    assert_eq!(fetched.progress.last(), Some(&(size, size)));
}

#[test]
fn redirect_is_followed() {
    let real = serve(|stream| send(&stream, &response_head(BODY.len()), BODY));
    let moved =
        format!("HTTP/1.1 302 Found\r\nlocation: {real}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let url = serve(move |stream| send(&stream, &moved, b""));
    fetch_from(&[url]).outcome.unwrap();
}

#[test]
fn second_url_is_tried_if_the_first_answers_404() {
    let gone = serve(|stream| send(&stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", b""));
    let good = serve(|stream| send(&stream, &response_head(BODY.len()), BODY));
    fetch_from(&[gone, good]).outcome.unwrap();
}

#[test]
fn body_with_a_wrong_checksum_is_refused() {
    let url = serve(|stream| send(&stream, &response_head(BODY.len()), &[b'x'; BODY.len()]));
    assert_fails_with("the SHA-256 of the body is", &[url]);
}

#[test]
fn wrong_content_length_is_refused() {
    let url = serve(|stream| send(&stream, &response_head(BODY.len() + 1), BODY));
    assert_fails_with(&format!("the server offers {} bytes", BODY.len() + 1), &[url]);
}

#[test]
fn endless_body_is_refused() {
    let url = serve(|stream| {
        send(&stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", BODY);
        // The server writes until the client closes the connection.
        while (&stream).write_all(&[0; 1024]).is_ok() {}
    });
    assert_fails_with("the body has more than", &[url]);
}

#[test]
fn body_that_ends_early_is_refused() {
    let url = serve(|stream| send(&stream, &response_head(BODY.len()), &BODY[..10]));
    assert_fails_with("after 10 of 52 bytes", &[url]);
    let url = serve(|stream| send(&stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &BODY[..10]));
    assert_fails_with("after 10 of 52 bytes", &[url]);
}

/// Starts a server that sends `text` and then keeps the connection open until the test ends.
fn stalling_server(text: String) -> (String, mpsc::Sender<()>) {
    let (test_end, wait) = mpsc::channel::<()>();
    let url = serve(move |stream| {
        send(&stream, &text, b"");
        // `recv` returns when the test drops the sender.
        let _ = wait.recv();
    });
    (url, test_end)
}

#[test]
fn server_without_a_response_times_out() {
    let (url, _test_end) = stalling_server(String::new());
    assert_fails_with("timeout", &[url]);
}

#[test]
fn server_that_stops_within_the_body_times_out() {
    let (url, _test_end) = stalling_server(format!("{}these are", response_head(BODY.len())));
    assert_fails_with("reading the body failed after 9 of 52 bytes: timeout", &[url]);
}

#[test]
fn model_without_urls_is_refused() {
    let fetched = fetch_from(&[]);
    assert!(matches!(fetched.outcome, Err(FetchError::NoUrl)));
}

#[test]
fn existing_file_with_other_content_is_not_overwritten() {
    let url = serve(|stream| send(&stream, &response_head(BODY.len()), BODY));
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("model.onnx");
    fs::write(&target, "months of training").unwrap();
    let error = fetch(&expected_file(&[url]), &target, &short_timeouts(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, FetchError::TargetExists(path) if *path == target), "{error}");
    assert_eq!(fs::read(&target).unwrap(), b"months of training");
    assert_eq!(common::file_names(folder.path()), ["model.onnx"]);
}

#[test]
fn missing_target_folder_is_reported_with_its_path() {
    let url = serve(|stream| send(&stream, &response_head(BODY.len()), BODY));
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("absent/model.onnx");
    let error = fetch(&expected_file(&[url]), &target, &short_timeouts(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, FetchError::Write { path, .. } if path.starts_with(folder.path())), "{error}");
}

#[test]
fn concurrent_fetches_of_one_file_both_succeed() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("model.onnx");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let url = serve(|stream| send(&stream, &response_head(BODY.len()), BODY));
                fetch(&expected_file(&[url]), &target, &short_timeouts(), &mut |_, _| {}).unwrap();
            });
        }
    });
    assert_eq!(fs::read(&target).unwrap(), BODY);
    assert_eq!(common::file_names(folder.path()), ["model.onnx"]);
}
