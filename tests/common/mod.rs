//! The whole pipeline for a test: both services on free ports, a data folder that lasts as long as
//! the test, and the few calls that a client makes.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "every test binary uses another part of this; a helper that fails fails the test"
)]

use std::{path::Path, time::Duration};

use clap::Parser;
use contract::PredictionRecord;
use image_pipeline::{Config, Pipeline};
use reqwest::{StatusCode, multipart};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up. Generous: it only bounds a hang.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A running pipeline.
pub struct App {
    pub client: Client,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

/// Where a pipeline's two services are.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub preprocess: String,
    pub classify: String,
}

/// Starts the pipeline on `data_dir` and waits until the model ran.
pub async fn spawn_app(data_dir: &Path) -> App {
    spawn_app_with(data_dir, &[]).await
}

/// As [`spawn_app`], with further flags.
pub async fn spawn_app_with(data_dir: &Path, flags: &[&str]) -> App {
    let data_dir = data_dir.to_str().unwrap();
    let fixed = ["image-pipeline", "--data-dir", data_dir, "--preprocess-port", "0", "--classify-port", "0"];
    let config = Config::try_parse_from(fixed.iter().chain(flags)).unwrap();
    let pipeline = Pipeline::build(config).await.unwrap();
    let client = Client {
        http: reqwest::Client::new(),
        preprocess: format!("http://{}", pipeline.preprocess_addr()),
        classify: format!("http://{}", pipeline.classify_addr()),
    };
    let readiness = pipeline.classify_readiness();
    let stop = CancellationToken::new();
    let running = tokio::spawn(pipeline.run(stop.clone()));
    tokio::time::timeout(PATIENCE, readiness.wait_ready()).await.expect("classify becomes ready");
    App { client, stop, running }
}

impl App {
    /// Asks it to stop, and gives what it ended with.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("drains").expect("does not panic")
    }
}

impl Client {
    /// `POST /preprocess` with one file.
    pub async fn upload(&self, photo: Vec<u8>) -> reqwest::Result<(StatusCode, Value)> {
        let part = multipart::Part::bytes(photo).file_name("photo.jpg");
        let form = multipart::Form::new().part("file", part);
        let answer = self.http.post(format!("{}/preprocess", self.preprocess)).multipart(form).send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    /// Uploads `photo`, which must be accepted, and gives its id.
    pub async fn must_upload(&self, photo: Vec<u8>) -> String {
        let (status, body) = self.upload(photo).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// Waits for the prediction of an upload.
    pub async fn prediction(&self, id: &str) -> PredictionRecord {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let answer = self
                    .http
                    .get(format!("{}/predictions/{id}?wait=20", self.preprocess))
                    .send()
                    .await
                    .unwrap();
                match answer.status() {
                    StatusCode::OK => return answer.json().await.unwrap(),
                    StatusCode::ACCEPTED => {}
                    other => panic!("GET /predictions/{id}: {other}: {:?}", answer.text().await),
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no prediction of {id} in {PATIENCE:?}"))
    }

    /// Waits for the label of an upload.
    pub async fn label(&self, id: &str) -> String {
        match self.prediction(id).await {
            PredictionRecord::Done(prediction) => prediction.label,
            PredictionRecord::Failed { error, .. } => panic!("{id} failed: {error:?}"),
        }
    }

    /// `POST /pubsub` with `body`.
    pub async fn push(&self, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let request =
            self.http.post(format!("{}/pubsub", self.classify)).header("content-type", "application/json");
        let answer = request.body(body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

/// A photo of the samples.
pub fn sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
