//! Starts the emulators, and services that use the emulators. See [`Cloud`].

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

use crate::common::{Client, TEST_TIMEOUT, read_sample};

/// Name of the bucket.
pub(crate) const BUCKET: &str = "images";

/// The two emulators, with a bucket, a topic for announcements, and a topic for results that has a pull
/// subscription.
pub(crate) struct Cloud {
    pub(crate) storage: StorageEmulator,
    pub(crate) pubsub: PubSubEmulator,
    pub(crate) bucket: GcsBucket,
    /// Full name of the topic for announcements.
    pub(crate) announcements_topic: String,
    /// Full name of the topic for results.
    results_topic: String,
    /// Full name of the subscription to the results.
    results_subscription: String,
    /// The results that the test has read so far. The key is the path of the image.
    pub(crate) results_by_path: BTreeMap<String, Vec<Value>>,
}

impl Cloud {
    /// Starts the emulators. Returns `None` if they are not installed.
    pub(crate) async fn start() -> Option<Self> {
        let storage = StorageEmulator::start().await.unwrap()?;
        let pubsub = PubSubEmulator::start().await.unwrap()?;
        storage.create_bucket(BUCKET).await.unwrap();
        let announcements_topic = pubsub.create_topic("preprocessed-images").await.unwrap();
        let results_topic = pubsub.create_topic("predictions").await.unwrap();
        let results_subscription =
            pubsub.create_pull_subscription("predictions-pull", &results_topic).await.unwrap();
        let cloud = cloud_args(Some(&storage), Some(&pubsub)).unwrap();
        let bucket = GcsBucket::open(BUCKET, &cloud).await.unwrap();
        Some(Self {
            storage,
            pubsub,
            bucket,
            announcements_topic,
            results_topic,
            results_subscription,
            results_by_path: BTreeMap::new(),
        })
    }

    /// Returns the flags that both services need to use these emulators.
    fn flags(&self) -> Vec<String> {
        let storage = self.storage.endpoint().unwrap();
        let pubsub = self.pubsub.endpoint().unwrap();
        let flags = ["--host=127.0.0.1", "--bucket=gs://images", "--google-cloud-project=test"];
        let flags = flags.map(str::to_owned).into_iter();
        flags
            .chain([format!("--storage-emulator-host={storage}"), format!("--pubsub-emulator-host={pubsub}")])
            .collect()
    }

    /// Starts preprocess with the flags that select the emulators, and with `more_flags`.
    pub(crate) async fn start_preprocess(&self, more_flags: &[&str]) -> RunningService {
        let flags = self.flags().into_iter().chain(more_flags.iter().copied().map(str::to_owned));
        let flags = ["preprocess", "--port=0"].map(str::to_owned).into_iter().chain(flags);
        let config = preprocess::Config::try_parse_from(flags).unwrap();
        let service = preprocess::Application::build(config).await.unwrap();
        let address = service.local_addr();
        RunningService::start(address, |stop| async {
            service.run(stop).await;
            Ok(())
        })
    }

    /// Starts classify with the real network, with the flags that select the emulators, and with
    /// `more_flags`. Waits until classify is ready.
    pub(crate) async fn start_classify(&self, port: u16, more_flags: &[&str]) -> RunningService {
        let flags = self.flags().into_iter().chain(more_flags.iter().copied().map(str::to_owned));
        let fixed_flags =
            ["classify".to_owned(), format!("--port={port}"), "--results-topic=predictions".to_owned()];
        let config = classify::Config::try_parse_from(fixed_flags.into_iter().chain(flags)).unwrap();
        let service = classify::Application::build(config).await.unwrap();
        let (address, readiness) = (service.local_addr(), service.readiness());
        let running = RunningService::start(address, |stop| service.run(stop));
        tokio::time::timeout(TEST_TIMEOUT, readiness.wait_ready()).await.expect("classify becomes ready");
        running
    }

    /// Starts classify with `engine` instead of the real network, and waits until classify is ready.
    pub(crate) async fn start_classify_with(
        &self,
        port: u16,
        engine: impl Infer + 'static,
    ) -> RunningService {
        let cloud = cloud_args(Some(&self.storage), Some(&self.pubsub)).unwrap();
        let results = PubSubTopic::open(&self.results_topic, &cloud).await.unwrap();
        let parts =
            Parts { results_topic: Some(Arc::new(results)), ..Parts::new(Arc::new(self.bucket.clone())) };
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
        let running = RunningService::start(address, |stop| service.run(stop));
        tokio::time::timeout(TEST_TIMEOUT, readiness.wait_ready()).await.expect("classify becomes ready");
        running
    }

    /// Creates a subscription that pushes the announcements to classify on `port`.
    pub(crate) async fn create_push_subscription(&self, port: u16, options: &PushOptions) {
        let url = format!("http://127.0.0.1:{port}/pubsub");
        self.pubsub
            .create_push_subscription("classify-push", &self.announcements_topic, &url, options)
            .await
            .unwrap();
    }

    /// Stores `data` as the image `id` and announces the image, as preprocess does. Returns the path of the
    /// image.
    pub(crate) async fn store_and_announce(&self, id: &str, data: &[u8]) -> String {
        let object_name = format!("{id}/image.jpg");
        self.storage.upload(BUCKET, &object_name, "image/jpeg", data.to_vec().into()).await.unwrap();
        let path = format!("gs://{BUCKET}/{object_name}");
        let announcement = json!({ "gcs_path": path }).to_string();
        self.pubsub.publish(&self.announcements_topic, announcement.as_bytes(), &json!({})).await.unwrap();
        path
    }

    /// Reads the results topic until it has results for `image_count` different images.
    pub(crate) async fn await_results(&mut self, image_count: usize) {
        let begin = Instant::now();
        while self.results_by_path.len() < image_count {
            assert!(begin.elapsed() < TEST_TIMEOUT, "{:?}", self.results_by_path);
            self.read_results().await;
        }
    }

    /// Reads the results that are available now and adds them to [`Self::results_by_path`].
    pub(crate) async fn read_results(&mut self) {
        for message in self.pubsub.pull(&self.results_subscription).await.unwrap() {
            let result: Value = serde_json::from_slice(&message.data).unwrap();
            let path = result["gcs_path"].as_str().unwrap().to_owned();
            self.results_by_path.entry(path).or_default().push(result);
        }
    }

    /// Returns the result for the image at `path`, and checks that there is exactly one.
    pub(crate) fn only_result_for(&self, path: &str) -> &Value {
        let results = self.results_by_path.get(path).map(Vec::as_slice).unwrap_or_default();
        let [result] = results else { panic!("{} results for {path}: {results:?}", results.len()) };
        result
    }

    /// Reads the object `name` from the bucket and parses it as JSON. Returns `None` if there is no such
    /// object.
    pub(crate) async fn read_object(&self, name: &str) -> Option<Value> {
        match self.bucket.read(&ObjectName::new(name).unwrap(), 1 << 20).await {
            Ok(object) => Some(serde_json::from_slice(&object.data).unwrap()),
            Err(BucketError::NotFound(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Waits until the object `name` exists, and parses its content as JSON.
    pub(crate) async fn await_object(&self, name: &str) -> Value {
        let begin = Instant::now();
        loop {
            if let Some(object) = self.read_object(name).await {
                return object;
            }
            assert!(begin.elapsed() < TEST_TIMEOUT, "there is no object {name}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A service that runs in a task.
pub(crate) struct RunningService {
    /// Base URL of the service, without a trailing slash.
    pub(crate) url: String,
    stop: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

impl RunningService {
    /// Spawns a task that runs the service which listens on `address`. `run` receives the token that stops
    /// the service.
    pub(crate) fn start<F>(address: SocketAddr, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { url: format!("http://{address}"), stop, task }
    }

    /// Stops the service, and checks that the service ends without an error.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(TEST_TIMEOUT, self.task).await.expect("the service stops").unwrap().unwrap();
    }
}

/// Returns a client of the services. Without `classify`, the client can only call preprocess.
pub(crate) fn client_of(preprocess: &RunningService, classify: Option<&RunningService>) -> Client {
    let classify_url = classify.map_or_else(String::new, |classify| classify.url.clone());
    Client { http: reqwest::Client::new(), preprocess_url: preprocess.url.clone(), classify_url }
}

/// Returns a port that is free now.
///
/// A service that starts on port 0 has another port after each start. A test that restarts a service needs a
/// port that stays the same.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Starts a proxy that forwards every push to the service on `port`.
///
/// Returns the port of the proxy, and a counter of the pushes that the proxy receives.
pub(crate) async fn start_counting_proxy(port: u16) -> (u16, Arc<AtomicUsize>) {
    let push_count = Arc::new(AtomicUsize::new(0));
    let (counter, client) = (Arc::clone(&push_count), reqwest::Client::new());
    let forward = any(move |headers: HeaderMap, body: Bytes| async move {
        counter.fetch_add(1, Ordering::SeqCst);
        let push = client.post(format!("http://127.0.0.1:{port}/pubsub")).headers(headers).body(body);
        push.send().await.map_or(StatusCode::BAD_GATEWAY, |response| response.status())
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(forward)).await.unwrap() });
    (proxy_port, push_count)
}

/// Returns a photo whose last byte is `number`.
///
/// The decoder ignores this byte, but the id of an upload depends on all of its bytes. So every number gives
/// an upload with a different id.
pub(crate) fn numbered_photo(number: u8) -> Vec<u8> {
    let mut photo = read_sample("coffee.jpg");
    photo.push(number);
    photo
}
