//! `kill -9` of the real process, again and again, loses no accepted upload.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper that fails fails the test"
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

use common::{Client, sample};
use reqwest::StatusCode;
use tokio::task::JoinSet;

/// Accepted uploads in all.
const UPLOADS: usize = 1_000;
/// The process is killed each time so many more are accepted.
const UPLOADS_PER_LIFE: usize = 170;
/// Uploads under way at once.
const CLIENTS: usize = 6;

/// The real binary, killed without a chance to clean up when this is dropped.
struct Process {
    child: Child,
    client: Client,
}

impl Process {
    /// Starts it on `data_dir` and reads from its greeting where it listens.
    fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_image-pipeline"))
            .args(["--preprocess-port", "0", "--classify-port", "0", "--log", "warn", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
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
        let [preprocess, .., classify] = urls.as_slice() else { panic!("no greeting: {urls:?}") };
        let client = Client {
            http: reqwest::Client::new(),
            preprocess: preprocess.clone(),
            classify: classify.clone(),
        };
        Self { child, client }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `Child::kill` is SIGKILL: what `kill -9` sends.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Upload number `n`: the same picture each time, but bytes of its own, so an id of its own.
fn photo(n: usize) -> Vec<u8> {
    let mut photo = sample("chelsea.jpg");
    photo.extend_from_slice(&n.to_le_bytes());
    photo
}

/// Starts the process on `data_dir`, uploads from several clients at once, and kills it with
/// requests under way once `wanted` uploads are accepted. Gives the ids of all that were accepted.
async fn live_and_die(data_dir: &Path, next: &Arc<AtomicUsize>, wanted: usize) -> Vec<String> {
    let process = Process::start(data_dir);
    let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    let killed = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, sender, next, killed) =
            (process.client.clone(), sender.clone(), next.clone(), killed.clone());
        clients.spawn(async move {
            loop {
                match client.upload(photo(next.fetch_add(1, Ordering::Relaxed))).await {
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
    while ids.len() < wanted {
        ids.push(accepted.recv().await.expect("the clients go on until the process is killed"));
    }
    killed.store(true, Ordering::SeqCst);
    drop(process);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    // Answers that came in between the last look and the kill were promises too.
    while let Some(id) = accepted.recv().await {
        ids.push(id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_upload_is_lost_to_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let next = Arc::new(AtomicUsize::new(0));
    let (mut accepted, mut kills) = (Vec::new(), 0);
    while accepted.len() < UPLOADS {
        accepted.extend(live_and_die(folder.path(), &next, UPLOADS_PER_LIFE).await);
        kills += 1;
    }

    let process = Process::start(folder.path());
    for id in &accepted {
        let label = process.client.label(id).await;
        assert!(["tabby", "tiger cat", "Egyptian cat"].contains(&label.as_str()), "{label}");
    }
    println!("{} uploads accepted over {kills} kills, each has its prediction", accepted.len());
}
