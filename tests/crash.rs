//! These tests kill the program repeatedly with `kill -9`, and check that no accepted upload is lost.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a helper fails the test"
)]

mod common;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use common::{Client, read_sample};
use reqwest::StatusCode;
use tokio::task::JoinSet;

/// Minimum number of accepted uploads of all processes together.
const MIN_UPLOADS: usize = 1_000;
/// Minimum number of uploads that a process accepts before the test kills the process. With these two
/// numbers, the test kills about six processes.
const MIN_UPLOADS_PER_PROCESS: usize = 170;
/// Number of clients that upload concurrently.
const CLIENT_COUNT: usize = 6;

/// A process that runs the program `image-pipeline`. Dropping this value kills the process with SIGKILL.
struct Process {
    child: Child,
    client: Client,
}

impl Process {
    /// Starts the program with the data folder `data_dir`, and reads the addresses of both services from its
    /// output.
    fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// Starts the program like [`Self::start`], with additional flags.
    fn start_with(data_dir: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_image-pipeline"))
            .args(["--preprocess-port", "0", "--classify-port", "0", "--log", "warn", "--data-dir"])
            .arg(data_dir)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The first address in the output is that of preprocess. The last one is that of classify.
        let mut urls = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(start) = line.find("http://") else { continue };
            let host = line["http://".len() + start..].split('/').next().unwrap();
            urls.push(format!("http://{host}"));
            if line.ends_with("/classify") {
                break;
            }
        }
        let [preprocess_url, .., classify_url] = urls.as_slice() else {
            panic!("the output does not have two addresses: {urls:?}")
        };
        let client = Client {
            http: reqwest::Client::new(),
            preprocess_url: preprocess_url.clone(),
            classify_url: classify_url.clone(),
        };
        Self { child, client }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `Child::kill` sends SIGKILL, as `kill -9` does.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Returns a photo whose last bytes are `number`.
///
/// The decoder ignores these bytes, but the id of an upload depends on all of its bytes. So every number
/// gives an upload with a different id.
fn numbered_photo(number: usize) -> Vec<u8> {
    let mut photo = read_sample("chelsea.jpg");
    photo.extend_from_slice(&number.to_le_bytes());
    photo
}

/// Starts a process with the data folder `data_dir`, and kills the process after it has accepted at least
/// `min_accepted` uploads.
///
/// [`CLIENT_COUNT`] clients upload concurrently, beginning with photo number `next_photo`. The clients are
/// still uploading when the process is killed. Returns the ids of all accepted uploads.
async fn upload_until_killed(
    data_dir: &Path,
    next_photo: &Arc<AtomicUsize>,
    min_accepted: usize,
) -> Vec<String> {
    let process = Process::start(data_dir);
    let (sender, mut accepted_ids) = tokio::sync::mpsc::unbounded_channel();
    let killed = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENT_COUNT {
        let (client, sender, next_photo, killed) =
            (process.client.clone(), sender.clone(), next_photo.clone(), killed.clone());
        clients.spawn(async move {
            loop {
                match client.upload(numbered_photo(next_photo.fetch_add(1, Ordering::Relaxed))).await {
                    Ok((StatusCode::OK, body)) => {
                        sender.send(body["id"].as_str().unwrap().to_owned()).unwrap()
                    }
                    Ok((status, body)) => panic!("{status}: {body}"),
                    Err(_) if killed.load(Ordering::SeqCst) => return,
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    drop(sender);

    let mut ids = Vec::new();
    while ids.len() < min_accepted {
        ids.push(accepted_ids.recv().await.expect("the clients upload until the process is killed"));
    }
    killed.store(true, Ordering::SeqCst);
    drop(process);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    // These uploads were accepted between the last `recv` above and the kill. They must not be lost either.
    while let Some(id) = accepted_ids.recv().await {
        ids.push(id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_uploads_get_their_predictions_after_repeated_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let next_photo = Arc::new(AtomicUsize::new(0));
    let (mut ids, mut kill_count) = (Vec::new(), 0);
    while ids.len() < MIN_UPLOADS {
        ids.extend(upload_until_killed(folder.path(), &next_photo, MIN_UPLOADS_PER_PROCESS).await);
        kill_count += 1;
    }

    let process = Process::start(folder.path());
    for id in &ids {
        let label = process.client.await_label(id).await;
        assert!(["tabby", "tiger cat", "Egyptian cat"].contains(&label.as_str()), "{label}");
    }
    println!(
        "{} uploads were accepted during {kill_count} kills. Each upload has its prediction.",
        ids.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_survive_more_starts_that_are_killed_at_once_than_attempts_are_allowed() {
    const MAX_ATTEMPTS: usize = 3;
    let flags = ["--topic-max-attempts", &MAX_ATTEMPTS.to_string()];
    let folder = tempfile::tempdir().unwrap();
    let next_photo = Arc::new(AtomicUsize::new(0));
    let ids = upload_until_killed(folder.path(), &next_photo, 20).await;
    for _ in 0..=MAX_ATTEMPTS {
        drop(Process::start_with(folder.path(), &flags));
    }
    let process = Process::start_with(folder.path(), &flags);
    for id in &ids {
        process.client.await_label(id).await;
    }
}
