//! The emulators, the services on them, and what a test does with both.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::any,
};
use bytes::Bytes;
use clap::Parser;
use classify::{Parts, engine::Infer};
use platform::{
    bucket::{Bucket, BucketError, GcsBucket, ObjectName},
    emulators::{PubSubEmulator, PushOptions, StorageEmulator, cloud_args},
    topic::PubSubTopic,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::{Client, PATIENCE, sample};

pub(crate) const BUCKET: &str = "images";

/// Both emulators with a bucket, a topic for images, and one for results with a subscription.
pub(crate) struct Cloud {
    pub(crate) storage: StorageEmulator,
    pub(crate) pubsub: PubSubEmulator,
    pub(crate) bucket: GcsBucket,
    pub(crate) images: String,
    results: String,
    results_pull: String,
    /// What was read from the results topic so far, by image.
    pub(crate) seen: BTreeMap<String, Vec<Value>>,
}

impl Cloud {
    /// `None` where the emulators are not there.
    pub(crate) async fn start() -> Option<Self> {
        let storage = StorageEmulator::start().await.unwrap()?;
        let pubsub = PubSubEmulator::start().await.unwrap()?;
        storage.create_bucket(BUCKET).await.unwrap();
        let images = pubsub.create_topic("preprocessed-images").await.unwrap();
        let results = pubsub.create_topic("predictions").await.unwrap();
        let results_pull = pubsub.create_pull_subscription("predictions-pull", &results).await.unwrap();
        let cloud = cloud_args(Some(&storage), Some(&pubsub)).unwrap();
        let bucket = GcsBucket::open(BUCKET, &cloud).await.unwrap();
        Some(Self { storage, pubsub, bucket, images, results, results_pull, seen: BTreeMap::new() })
    }

    /// What a service on this cloud is started with.
    fn flags(&self) -> Vec<String> {
        let storage = self.storage.endpoint().unwrap();
        let pubsub = self.pubsub.endpoint().unwrap();
        let flags = ["--host=127.0.0.1", "--bucket=gs://images", "--google-cloud-project=test"];
        let flags = flags.map(str::to_owned).into_iter();
        flags
            .chain([format!("--storage-emulator-host={storage}"), format!("--pubsub-emulator-host={pubsub}")])
            .collect()
    }

    pub(crate) async fn preprocess(&self, more: &[&str]) -> Running {
        let flags = self.flags().into_iter().chain(more.iter().copied().map(str::to_owned));
        let flags = ["preprocess", "--port=0"].map(str::to_owned).into_iter().chain(flags);
        let config = preprocess::Config::try_parse_from(flags).unwrap();
        let service = preprocess::Application::build(config).await.unwrap();
        let address = service.local_addr();
        Running::of(address, |stop| service.run(stop))
    }

    /// classify as its binary runs it, with the real network.
    pub(crate) async fn classify(&self, port: u16, more: &[&str]) -> Running {
        let flags = self.flags().into_iter().chain(more.iter().copied().map(str::to_owned));
        let fixed =
            ["classify".to_owned(), format!("--port={port}"), "--results-topic=predictions".to_owned()];
        let config = classify::Config::try_parse_from(fixed.into_iter().chain(flags)).unwrap();
        let service = classify::Application::build(config).await.unwrap();
        let (address, readiness) = (service.local_addr(), service.readiness());
        let running = Running::of(address, |stop| service.run(stop));
        tokio::time::timeout(PATIENCE, readiness.wait_ready()).await.expect("classify becomes ready");
        running
    }

    /// classify with an engine of the test's.
    pub(crate) async fn classify_with(&self, port: u16, engine: impl Infer + 'static) -> Running {
        let cloud = cloud_args(Some(&self.storage), Some(&self.pubsub)).unwrap();
        let results = PubSubTopic::open(&self.results, &cloud).await.unwrap();
        let parts = Parts { results: Some(Arc::new(results)), ..Parts::new(Arc::new(self.bucket.clone())) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let service = classify::Application::assemble_with(
            address,
            classify::Settings::default(),
            parts,
            vec![Box::new(engine)],
        )
        .await
        .unwrap();
        let (address, readiness) = (service.local_addr(), service.readiness());
        let running = Running::of(address, |stop| service.run(stop));
        tokio::time::timeout(PATIENCE, readiness.wait_ready()).await.expect("classify becomes ready");
        running
    }

    pub(crate) async fn push_to(&self, port: u16, options: &PushOptions) {
        let url = format!("http://127.0.0.1:{port}/pubsub");
        self.pubsub.create_push_subscription("classify-push", &self.images, &url, options).await.unwrap();
    }

    /// Puts `data` where preprocess puts images, and announces it as preprocess does.
    pub(crate) async fn announce(&self, id: &str, data: &[u8]) -> String {
        let object = format!("{id}/image.jpg");
        self.storage.upload(BUCKET, &object, "image/jpeg", data.to_vec().into()).await.unwrap();
        let path = format!("gs://{BUCKET}/{object}");
        let event = json!({ "gcs_path": path }).to_string();
        self.pubsub.publish(&self.images, event.as_bytes(), &json!({})).await.unwrap();
        path
    }

    /// Reads the results topic until it has told of `images` different images.
    pub(crate) async fn results_of(&mut self, images: usize) {
        let begin = Instant::now();
        while self.seen.len() < images {
            assert!(begin.elapsed() < PATIENCE, "{:?}", self.seen);
            self.read_results().await;
        }
    }

    pub(crate) async fn read_results(&mut self) {
        for message in self.pubsub.pull(&self.results_pull).await.unwrap() {
            let result: Value = serde_json::from_slice(&message.data).unwrap();
            let path = result["gcs_path"].as_str().unwrap().to_owned();
            self.seen.entry(path).or_default().push(result);
        }
    }

    /// The one result of `path`.
    pub(crate) fn result(&self, path: &str) -> &Value {
        let results = self.seen.get(path).map(Vec::as_slice).unwrap_or_default();
        let [result] = results else { panic!("{} results of {path}: {results:?}", results.len()) };
        result
    }

    pub(crate) async fn object(&self, name: &str) -> Option<Value> {
        match self.bucket.read(&ObjectName::new(name).unwrap(), 1 << 20).await {
            Ok(object) => Some(serde_json::from_slice(&object.data).unwrap()),
            Err(BucketError::NotFound(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Waits until the object is there.
    pub(crate) async fn await_object(&self, name: &str) -> Value {
        let begin = Instant::now();
        loop {
            if let Some(object) = self.object(name).await {
                return object;
            }
            assert!(begin.elapsed() < PATIENCE, "no {name}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A service that runs.
pub(crate) struct Running {
    pub(crate) url: String,
    stop: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub(crate) fn of<F>(address: SocketAddr, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { url: format!("http://{address}"), stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("drains").unwrap().unwrap();
    }
}

pub(crate) fn client(preprocess: &Running, classify: Option<&Running>) -> Client {
    let classify = classify.map_or_else(String::new, |classify| classify.url.clone());
    Client { http: reqwest::Client::new(), preprocess: preprocess.url.clone(), classify }
}

/// A port that is free now, for a service that is started and stopped and started again.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Hands every push on to the service on `port`; its own port, and how many came.
pub(crate) async fn counting_proxy(port: u16) -> (u16, Arc<AtomicUsize>) {
    let pushes = Arc::new(AtomicUsize::new(0));
    let (counted, client) = (Arc::clone(&pushes), reqwest::Client::new());
    let forward = any(move |headers: HeaderMap, body: Bytes| async move {
        counted.fetch_add(1, Ordering::SeqCst);
        let push = client.post(format!("http://127.0.0.1:{port}/pubsub")).headers(headers).body(body);
        push.send().await.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(forward)).await.unwrap() });
    (own_port, pushes)
}

/// An upload of its own: the same picture with a number behind it.
pub(crate) fn photo(number: u8) -> Vec<u8> {
    let mut photo = sample("coffee.jpg");
    photo.push(number);
    photo
}
