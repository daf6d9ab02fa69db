//! Emulators of Google Cloud for the tests (feature `testing`): started on free ports, killed when
//! dropped. `.ci/emulators` gets the programs; where one is not there, [`StorageEmulator::start`] and
//! [`PubSubEmulator::start`] give `None` and say on standard error how to get it.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::cloud::{CloudArgs, Endpoint};

/// Project of everything that tests make.
pub const PROJECT: &str = "test";
/// An emulator answers within seconds of its start; this is for machines that are very busy.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What went wrong on the way to or in an emulator.
pub type EmulatorError = Box<dyn std::error::Error + Send + Sync>;

/// Cloud Storage: fake-gcs-server, everything in memory.
#[derive(Debug)]
pub struct StorageEmulator(Running);

/// Pub/Sub: Google's own emulator.
#[derive(Debug)]
pub struct PubSubEmulator(Running);

/// How a push subscription delivers.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Seconds that an answer may take before the message is delivered again; at least 10.
    pub ack_deadline_seconds: u32,
    /// Topic for messages that were refused five times.
    pub dead_letter_topic: Option<String>,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { ack_deadline_seconds: 60, dead_letter_topic: None }
    }
}

/// A message that [`PubSubEmulator::pull`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Payload.
    pub data: Bytes,
    /// Attributes, as JSON.
    pub attributes: Value,
}

impl StorageEmulator {
    /// Starts one with no bucket in it.
    ///
    /// # Errors
    /// When the program is there and does not start.
    pub async fn start() -> Result<Option<Self>, EmulatorError> {
        let Some(program) = installed("fake-gcs-server") else {
            return Ok(None);
        };
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory"]);
        command.args(["-port", &port.to_string(), "-external-url", &url]);
        command.args(["-public-host", &format!("127.0.0.1:{port}")]);
        let running = Running::start(command, &url, "/storage/v1/b").await?;
        Ok(Some(Self(running)))
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create_bucket(&self, name: &str) -> Result<(), EmulatorError> {
        let path = format!("/storage/v1/b?project={PROJECT}");
        self.0.call(Method::POST, &path, &json!({ "name": name })).await.map(drop)
    }

    /// Writes an object as anybody with a right to may, over what was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn upload(
        &self,
        bucket: &str,
        object: &str,
        content_type: &str,
        data: Bytes,
    ) -> Result<Value, EmulatorError> {
        let url = format!("{}/upload/storage/v1/b/{bucket}/o", self.0.url);
        let request = self
            .0
            .client
            .post(url)
            .query(&[("uploadType", "media"), ("name", object)])
            .header("content-type", content_type)
            .body(data);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// The configuration that leads here.
    ///
    /// # Errors
    /// Never, as long as the address is one.
    pub fn endpoint(&self) -> Result<Endpoint, EmulatorError> {
        Ok(self.0.url.parse()?)
    }
}

impl PubSubEmulator {
    /// Starts one with no topic in it.
    ///
    /// # Errors
    /// When the program is there and does not start.
    pub async fn start() -> Result<Option<Self>, EmulatorError> {
        let Some(jar) = installed("pubsub-emulator.jar") else {
            return Ok(None);
        };
        let port = free_port()?;
        let mut command = Command::new("java");
        command.arg("-jar").arg(jar).args(["--host=127.0.0.1", &format!("--port={port}")]);
        let running = Running::start(command, &format!("http://127.0.0.1:{port}"), "/").await?;
        Ok(Some(Self(running)))
    }

    /// Makes a topic and returns its whole name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create_topic(&self, name: &str) -> Result<String, EmulatorError> {
        let name = format!("projects/{PROJECT}/topics/{name}");
        self.0.call(Method::PUT, &format!("/v1/{name}"), &json!({})).await?;
        Ok(name)
    }

    /// Makes a subscription of `topic` (its whole name) that pushes to `url`.
    ///
    /// It has no retry policy: with one, the emulator loses messages that are to be delivered again in
    /// the same millisecond.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create_push_subscription(
        &self,
        name: &str,
        topic: &str,
        url: &str,
        options: &PushOptions,
    ) -> Result<String, EmulatorError> {
        let mut body = json!({
            "topic": topic,
            "pushConfig": { "pushEndpoint": url },
            "ackDeadlineSeconds": options.ack_deadline_seconds,
        });
        if let Some(dead) = &options.dead_letter_topic {
            body["deadLetterPolicy"] = json!({ "deadLetterTopic": dead, "maxDeliveryAttempts": 5 });
        }
        self.create_subscription(name, &body).await
    }

    /// Makes a subscription of `topic` (its whole name) to pull from, and returns its whole name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create_pull_subscription(&self, name: &str, topic: &str) -> Result<String, EmulatorError> {
        self.create_subscription(name, &json!({ "topic": topic, "ackDeadlineSeconds": 10 })).await
    }

    async fn create_subscription(&self, name: &str, body: &Value) -> Result<String, EmulatorError> {
        let name = format!("projects/{PROJECT}/subscriptions/{name}");
        self.0.call(Method::PUT, &format!("/v1/{name}"), body).await?;
        Ok(name)
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// When the emulator refuses it.
    pub async fn publish(&self, topic: &str, data: &[u8], attributes: &Value) -> Result<(), EmulatorError> {
        let message = json!({ "data": BASE64_STANDARD.encode(data), "attributes": attributes });
        let path = format!("/v1/{topic}:publish");
        self.0.call(Method::POST, &path, &json!({ "messages": [message] })).await.map(drop)
    }

    /// Takes what is there at `subscription` (its whole name) now, and acknowledges it.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn pull(&self, subscription: &str) -> Result<Vec<Pulled>, EmulatorError> {
        let request = json!({ "maxMessages": 1000, "returnImmediately": true });
        let answer = self.0.call(Method::POST, &format!("/v1/{subscription}:pull"), &request).await?;
        let received = answer["receivedMessages"].as_array().cloned().unwrap_or_default();
        if received.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&Value> = received.iter().map(|received| &received["ackId"]).collect();
        let acknowledge = format!("/v1/{subscription}:acknowledge");
        self.0.call(Method::POST, &acknowledge, &json!({ "ackIds": ids })).await?;
        received
            .iter()
            .map(|received| {
                let message = &received["message"];
                let data = BASE64_STANDARD.decode(message["data"].as_str().unwrap_or_default())?;
                Ok(Pulled { data: data.into(), attributes: message["attributes"].clone() })
            })
            .collect()
    }

    /// The configuration that leads here.
    ///
    /// # Errors
    /// Never, as long as the address is one.
    pub fn endpoint(&self) -> Result<Endpoint, EmulatorError> {
        Ok(self.0.url.parse()?)
    }
}

/// The configuration that leads to the emulators given.
///
/// # Errors
/// Never, as long as their addresses are ones.
pub fn cloud_args(
    storage: Option<&StorageEmulator>,
    pubsub: Option<&PubSubEmulator>,
) -> Result<CloudArgs, EmulatorError> {
    Ok(CloudArgs {
        google_cloud_project: Some(PROJECT.to_owned()),
        storage_emulator_host: storage.map(StorageEmulator::endpoint).transpose()?,
        pubsub_emulator_host: pubsub.map(PubSubEmulator::endpoint).transpose()?,
        ..CloudArgs::default()
    })
}

/// An emulator's process.
#[derive(Debug)]
struct Running {
    process: Child,
    url: String,
    client: Client,
}

impl Running {
    /// Starts `command` and waits until it answers at `path`.
    async fn start(mut command: Command, url: &str, path: &str) -> Result<Self, EmulatorError> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut running = Self { process, url: url.to_owned(), client: Client::new() };
        let begin = Instant::now();
        loop {
            let answer = running.client.get(format!("{url}{path}")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(running);
            }
            if let Some(status) = running.process.try_wait()? {
                return Err(format!("{command:?} ended with {status}").into());
            }
            if begin.elapsed() > START_TIMEOUT {
                return Err(format!("{command:?} does not answer at {url}{path}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, EmulatorError> {
        let request = self.client.request(method, format!("{}{path}", self.url)).json(body);
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        if status != StatusCode::OK {
            return Err(format!("{path}: {status}: {text}").into());
        }
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nobody is left to be told when this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where `.ci/emulators` puts a program, if it did.
fn installed(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/emulators")).join(name);
    let there = path.exists();
    if !there {
        let notice = format!("SKIPPED: no {name} in target/emulators; .ci/emulators puts it there\n");
        // Standard error may be closed; then nobody reads it anyway.
        let _ = io::Write::write_all(&mut io::stderr(), notice.as_bytes());
    }
    there.then_some(path)
}

/// A port that nobody listens on at this moment.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
