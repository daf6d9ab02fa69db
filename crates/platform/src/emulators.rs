//! Emulators of Google Cloud for tests (feature `testing`).
//!
//! An emulator is a process that listens on a free port. Dropping the emulator kills the process.
//! `.ci/emulators` downloads the programs. If a program is missing, `start` returns `None` and prints to
//! stderr how to get the program.

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

use crate::cloud::{CloudArgs, EmulatorAddress};

/// Project of the topics and subscriptions that tests create.
pub const PROJECT: &str = "test";
/// Maximum time that an emulator may take to start. A start usually takes a few seconds, but longer on a busy
/// machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The error of starting or calling an emulator.
pub type EmulatorError = Box<dyn std::error::Error + Send + Sync>;

/// The program fake-gcs-server, which emulates Cloud Storage and keeps objects in memory.
#[derive(Debug)]
pub struct StorageEmulator(EmulatorProcess);

/// Google's Pub/Sub emulator.
#[derive(Debug)]
pub struct PubSubEmulator(EmulatorProcess);

/// Options of a push subscription.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Time in seconds after which an unacknowledged message is delivered again. Pub/Sub's minimum is 10.
    pub ack_deadline_seconds: u32,
    /// Full name of the topic that receives messages which are still unacknowledged after five deliveries.
    pub dead_letter_topic: Option<String>,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { ack_deadline_seconds: 60, dead_letter_topic: None }
    }
}

/// A message returned by [`PubSubEmulator::pull`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledMessage {
    /// Payload.
    pub data: Bytes,
    /// Attributes, as a JSON object.
    pub attributes: Value,
}

impl StorageEmulator {
    /// Starts an emulator without buckets. Returns `None` if the program is not installed.
    ///
    /// # Errors
    /// Returns an error if the program does not start, or does not respond in time.
    pub async fn start() -> Result<Option<Self>, EmulatorError> {
        let Some(program) = installed_program("fake-gcs-server") else {
            return Ok(None);
        };
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory"]);
        command.args(["-port", &port.to_string(), "-external-url", &url]);
        command.args(["-public-host", &format!("127.0.0.1:{port}")]);
        let process = EmulatorProcess::start(command, &url, "/storage/v1/b").await?;
        Ok(Some(Self(process)))
    }

    /// Creates a bucket.
    ///
    /// # Errors
    /// Returns an error if the emulator refuses the request.
    pub async fn create_bucket(&self, name: &str) -> Result<(), EmulatorError> {
        let path = format!("/storage/v1/b?project={PROJECT}");
        self.0.call(Method::POST, &path, &json!({ "name": name })).await.map(drop)
    }

    /// Writes an object, and replaces an existing object of that name. Returns the metadata of the object as
    /// JSON.
    ///
    /// # Errors
    /// Returns an error if the emulator refuses the request.
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

    /// Returns the address of the emulator.
    ///
    /// # Errors
    /// Returns an error if the address is invalid, which does not happen.
    pub fn endpoint(&self) -> Result<EmulatorAddress, EmulatorError> {
        Ok(self.0.url.parse()?)
    }
}

impl PubSubEmulator {
    /// Starts an emulator without topics. Returns `None` if the program is not installed.
    ///
    /// # Errors
    /// Returns an error if the program does not start, or does not respond in time.
    pub async fn start() -> Result<Option<Self>, EmulatorError> {
        let Some(jar) = installed_program("pubsub-emulator.jar") else {
            return Ok(None);
        };
        let port = free_port()?;
        let mut command = Command::new("java");
        command.arg("-jar").arg(jar).args(["--host=127.0.0.1", &format!("--port={port}")]);
        let process = EmulatorProcess::start(command, &format!("http://127.0.0.1:{port}"), "/").await?;
        Ok(Some(Self(process)))
    }

    /// Creates a topic and returns its full name.
    ///
    /// # Errors
    /// Returns an error if the emulator refuses the request.
    pub async fn create_topic(&self, name: &str) -> Result<String, EmulatorError> {
        let full_name = format!("projects/{PROJECT}/topics/{name}");
        self.0.call(Method::PUT, &format!("/v1/{full_name}"), &json!({})).await?;
        Ok(full_name)
    }

    /// Creates a subscription that pushes the messages of `topic`, a full name, to `url`. Returns the full
    /// name of the subscription.
    ///
    /// The subscription has no retry policy. If a subscription has one, the emulator loses messages that are
    /// due in the same millisecond.
    ///
    /// # Errors
    /// Returns an error if the emulator refuses the request.
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
        if let Some(dead_letter_topic) = &options.dead_letter_topic {
            body["deadLetterPolicy"] =
                json!({ "deadLetterTopic": dead_letter_topic, "maxDeliveryAttempts": 5 });
        }
        self.create_subscription(name, &body).await
    }

    /// Creates a subscription from which the messages of `topic`, a full name, can be pulled. Returns the
    /// full name of the subscription.
    ///
    /// # Errors
    /// Returns an error if the emulator refuses the request.
    pub async fn create_pull_subscription(&self, name: &str, topic: &str) -> Result<String, EmulatorError> {
        self.create_subscription(name, &json!({ "topic": topic, "ackDeadlineSeconds": 10 })).await
    }

    async fn create_subscription(&self, name: &str, body: &Value) -> Result<String, EmulatorError> {
        let full_name = format!("projects/{PROJECT}/subscriptions/{name}");
        self.0.call(Method::PUT, &format!("/v1/{full_name}"), body).await?;
        Ok(full_name)
    }

    /// Publishes a message to `topic`, a full name. `attributes` is a JSON object.
    ///
    /// # Errors
    /// Returns an error if the emulator refuses the request.
    pub async fn publish(&self, topic: &str, data: &[u8], attributes: &Value) -> Result<(), EmulatorError> {
        let message = json!({ "data": BASE64_STANDARD.encode(data), "attributes": attributes });
        let path = format!("/v1/{topic}:publish");
        self.0.call(Method::POST, &path, &json!({ "messages": [message] })).await.map(drop)
    }

    /// Pulls and acknowledges the messages that `subscription`, a full name, has now.
    ///
    /// # Errors
    /// Returns an error if the emulator does not respond, or its response is invalid.
    pub async fn pull(&self, subscription: &str) -> Result<Vec<PulledMessage>, EmulatorError> {
        let request = json!({ "maxMessages": 1000, "returnImmediately": true });
        let response = self.0.call(Method::POST, &format!("/v1/{subscription}:pull"), &request).await?;
        let received = response["receivedMessages"].as_array().cloned().unwrap_or_default();
        if received.is_empty() {
            return Ok(Vec::new());
        }
        let ack_ids: Vec<&Value> = received.iter().map(|received| &received["ackId"]).collect();
        let acknowledge_path = format!("/v1/{subscription}:acknowledge");
        self.0.call(Method::POST, &acknowledge_path, &json!({ "ackIds": ack_ids })).await?;
        received
            .iter()
            .map(|received| {
                let message = &received["message"];
                let data = BASE64_STANDARD.decode(message["data"].as_str().unwrap_or_default())?;
                Ok(PulledMessage { data: data.into(), attributes: message["attributes"].clone() })
            })
            .collect()
    }

    /// Returns the address of the emulator.
    ///
    /// # Errors
    /// Returns an error if the address is invalid, which does not happen.
    pub fn endpoint(&self) -> Result<EmulatorAddress, EmulatorError> {
        Ok(self.0.url.parse()?)
    }
}

/// Returns settings for calls to the given emulators.
///
/// # Errors
/// Returns an error if the address of an emulator is invalid, which does not happen.
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

/// The process of an emulator. Dropping this value kills the process.
#[derive(Debug)]
struct EmulatorProcess {
    process: Child,
    url: String,
    client: Client,
}

impl EmulatorProcess {
    /// Starts `command`, and waits until a GET request for `path` succeeds.
    async fn start(mut command: Command, url: &str, path: &str) -> Result<Self, EmulatorError> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut emulator = Self { process, url: url.to_owned(), client: Client::new() };
        let started_at = Instant::now();
        loop {
            let response = emulator.client.get(format!("{url}{path}")).send().await;
            if response.is_ok_and(|response| response.status().is_success()) {
                return Ok(emulator);
            }
            if let Some(status) = emulator.process.try_wait()? {
                return Err(format!("{command:?} ended with {status}").into());
            }
            if started_at.elapsed() > START_TIMEOUT {
                return Err(format!("{command:?} does not respond at {url}{path}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a request with the JSON `body`, and returns the JSON of the response.
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

impl Drop for EmulatorProcess {
    fn drop(&mut self) {
        // Failures are ignored, because a destructor cannot return them.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the path to which `.ci/emulators` downloads the program `name`. If the program is missing, prints
/// a notice and returns `None`.
fn installed_program(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/emulators")).join(name);
    let exists = path.exists();
    if !exists {
        let notice = format!("SKIPPED: no {name} in target/emulators; .ci/emulators downloads it\n");
        // Writing fails only if stderr is closed. Then nobody would read the notice.
        let _ = io::Write::write_all(&mut io::stderr(), notice.as_bytes());
    }
    exists.then_some(path)
}

/// Returns a port that is free now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
