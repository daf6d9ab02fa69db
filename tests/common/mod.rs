//! Helpers that run the whole pipeline on free ports and send requests to its services.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part of this module, and a panic in a helper fails the test"
)]

use std::{path::Path, time::Duration};

use clap::Parser;
use contract::PredictionRecord;
use image_pipeline::{Config, Pipeline};
use reqwest::{StatusCode, multipart};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Timeout of every wait in these tests. The timeout is long because only a test that hangs reaches it.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(300);

/// A running pipeline.
pub struct RunningPipeline {
    pub client: Client,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// An HTTP client of preprocess and classify.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    /// Base URL of preprocess, without a trailing slash.
    pub preprocess_url: String,
    /// Base URL of classify, without a trailing slash.
    pub classify_url: String,
}

/// Starts a pipeline that stores its data in the folder `data_dir`, and waits until classify is ready.
pub async fn start_pipeline(data_dir: &Path) -> RunningPipeline {
    start_pipeline_with(data_dir, &[]).await
}

/// Builds a pipeline with the data folder `data_dir` and additional flags.
pub async fn build_pipeline(data_dir: &Path, flags: &[&str]) -> anyhow::Result<Pipeline> {
    let data_dir = data_dir.to_str().unwrap();
    let fixed_flags =
        ["image-pipeline", "--data-dir", data_dir, "--preprocess-port", "0", "--classify-port", "0"];
    Pipeline::build(Config::try_parse_from(fixed_flags.iter().chain(flags)).unwrap()).await
}

/// Starts a pipeline like [`start_pipeline`], with additional flags.
pub async fn start_pipeline_with(data_dir: &Path, flags: &[&str]) -> RunningPipeline {
    let pipeline = build_pipeline(data_dir, flags).await.unwrap();
    let client = Client {
        http: reqwest::Client::new(),
        preprocess_url: format!("http://{}", pipeline.preprocess_addr()),
        classify_url: format!("http://{}", pipeline.classify_addr()),
    };
    let readiness = pipeline.classify_readiness();
    let stop = CancellationToken::new();
    let task = tokio::spawn(pipeline.run(stop.clone()));
    tokio::time::timeout(TEST_TIMEOUT, readiness.wait_ready()).await.expect("classify becomes ready");
    RunningPipeline { client, stop, task }
}

impl RunningPipeline {
    /// Stops the pipeline and returns the result of [`Pipeline::run`].
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        tokio::time::timeout(TEST_TIMEOUT, self.task)
            .await
            .expect("the pipeline stops")
            .expect("the pipeline does not panic")
    }
}

impl Client {
    /// Sends `POST /preprocess` with the bytes of a photo. Returns the status and the body of the response.
    pub async fn upload(&self, photo: Vec<u8>) -> reqwest::Result<(StatusCode, Value)> {
        let part = multipart::Part::bytes(photo).file_name("photo.jpg");
        let form = multipart::Form::new().part("file", part);
        let response =
            self.http.post(format!("{}/preprocess", self.preprocess_url)).multipart(form).send().await?;
        Ok((response.status(), response.json().await?))
    }

    /// Uploads the bytes of a photo, checks that preprocess accepts the upload, and returns its id.
    pub async fn upload_and_get_id(&self, photo: Vec<u8>) -> String {
        let (status, body) = self.upload(photo).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the upload `id` has a prediction record, and returns the record.
    pub async fn await_prediction(&self, id: &str) -> PredictionRecord {
        tokio::time::timeout(TEST_TIMEOUT, async {
            loop {
                let response = self
                    .http
                    .get(format!("{}/predictions/{id}?wait=20", self.preprocess_url))
                    .send()
                    .await
                    .unwrap();
                match response.status() {
                    StatusCode::OK => return response.json().await.unwrap(),
                    StatusCode::ACCEPTED => {}
                    status => panic!("GET /predictions/{id}: {status}: {:?}", response.text().await),
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{id} has no prediction after {TEST_TIMEOUT:?}"))
    }

    /// Waits until the upload `id` has a prediction record, checks that classification succeeded, and returns
    /// the label.
    pub async fn await_label(&self, id: &str) -> String {
        match self.await_prediction(id).await {
            PredictionRecord::Done(prediction) => prediction.label,
            PredictionRecord::Embedded(_) => panic!("{id} has an embedding and no label"),
            PredictionRecord::Failed { error, .. } => panic!("{id} cannot be classified: {error:?}"),
        }
    }

    /// Sends `POST /pubsub` with `body` to classify, and returns the status and the body of the response.
    pub async fn push_event(&self, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let request = self
            .http
            .post(format!("{}/pubsub", self.classify_url))
            .header("content-type", "application/json");
        let response = request.body(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
}

/// Returns the content of the file `name` in `samples/`.
pub fn read_sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
