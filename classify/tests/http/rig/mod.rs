//! The test rig: a running service, a bucket that can fail, and engines that the test controls.

mod bucket;
mod engines;
mod notification;

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use classify::{
    Application, Parts, Settings,
    engine::Infer,
    model::{Head, compiled_model},
};
use contract::ModelId;
use platform::{
    bucket::{Bucket, Created, ObjectName},
    http::{Readiness, push_auth::PushAuth},
    telemetry::{self, LogFormat},
    topic::{InMemoryTopic, push::Delivery},
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::engines::{EspressoEngine, FixedEngine};
pub(crate) use self::{
    bucket::TestBucket,
    engines::{ESPRESSO, Gate, Verdict},
    notification::{build_notification, build_resource},
};

/// Timeout of every wait. On a machine that is not overloaded, a wait takes milliseconds.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A running service. Dropping this value stops the service.
pub(crate) struct Rig {
    pub(crate) bucket: Arc<TestBucket>,
    pub(crate) results: Arc<InMemoryTopic>,
    classified_count: Arc<AtomicUsize>,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
    address: SocketAddr,
    client: Client,
}

impl Rig {
    /// Starts a service with the compiled-in network and waits until the service is ready.
    ///
    /// The service publishes no results.
    pub(crate) async fn with_network() -> Self {
        let bucket = Arc::new(TestBucket::default());
        let parts = Parts::new(bucket.clone());
        let application = Application::assemble(any_port(), Settings::default(), parts).await.unwrap();
        Self::run(application, bucket, Arc::default(), Arc::default()).wait_until_ready().await
    }

    /// Starts a service with `engines` without waiting until the service is ready.
    pub(crate) async fn start_without_waiting(settings: Settings, engines: Vec<Box<dyn Infer>>) -> Self {
        let (bucket, model) = (Arc::default(), compiled_model());
        Self::start_on_bucket(bucket, model, settings, engines, Arc::default()).await
    }

    async fn start_on_bucket(
        bucket: Arc<TestBucket>,
        model: ModelId,
        settings: Settings,
        engines: Vec<Box<dyn Infer>>,
        classified_count: Arc<AtomicUsize>,
    ) -> Self {
        let results = Arc::new(InMemoryTopic::default());
        let parts = Parts { results_topic: Some(results.clone()), model, ..Parts::new(bucket.clone()) };
        let application = Application::assemble_with(any_port(), settings, parts, engines).await.unwrap();
        Self::run(application, bucket, results, classified_count)
    }

    /// Starts a service with `engines` and waits until the service is ready.
    pub(crate) async fn with_engines(settings: Settings, engines: Vec<Box<dyn Infer>>) -> Self {
        Self::start_without_waiting(settings, engines).await.wait_until_ready().await
    }

    /// Starts a service whose engine always predicts espresso, and waits until the service is ready.
    pub(crate) async fn with_espresso_engine() -> Self {
        Self::with_espresso_engine_on(TestBucket::default(), Settings::default()).await
    }

    /// Starts the service of [`Self::with_espresso_engine`] with this bucket and these settings.
    pub(crate) async fn with_espresso_engine_on(bucket: TestBucket, settings: Settings) -> Self {
        Self::with_model_on(Arc::new(bucket), compiled_model(), settings).await
    }

    /// Starts a service whose engine always predicts espresso as `model`. Other services may share the bucket.
    pub(crate) async fn with_model_on(bucket: Arc<TestBucket>, model: ModelId, settings: Settings) -> Self {
        let classified_count = Arc::default();
        let engine: Box<dyn Infer> =
            Box::new(EspressoEngine { classified_count: Arc::clone(&classified_count) });
        Self::start_on_bucket(bucket, model, settings, vec![engine], classified_count)
            .await
            .wait_until_ready()
            .await
    }

    /// Starts a service that runs `engine` as `model`. Other services may share the bucket.
    pub(crate) async fn with_engine_of_model_on(
        bucket: Arc<TestBucket>,
        model: ModelId,
        engine: Box<dyn Infer>,
    ) -> Self {
        Self::start_on_bucket(bucket, model, Settings::default(), vec![engine], Arc::default())
            .await
            .wait_until_ready()
            .await
    }

    /// Starts a service whose model has the head `head` and gives `outputs` for every image, and waits until the
    /// service is ready.
    pub(crate) async fn with_head(head: Head, outputs: &[f32]) -> Self {
        Self::with_head_of_model_on(Arc::default(), compiled_model(), head, outputs).await
    }

    /// Starts the service of [`Self::with_head`] as `model`. Other services may share the bucket.
    pub(crate) async fn with_head_of_model_on(
        bucket: Arc<TestBucket>,
        model: ModelId,
        head: Head,
        outputs: &[f32],
    ) -> Self {
        let (results, run_count) = (Arc::new(InMemoryTopic::default()), Arc::default());
        let engine: Box<dyn Infer> =
            Box::new(FixedEngine { outputs: outputs.to_vec(), run_count: Arc::clone(&run_count) });
        let parts = Parts { results_topic: Some(results.clone()), model, ..Parts::new(bucket.clone()) };
        // The default is that of the compiled-in model.
        let top_k = NonZeroUsize::new(head.class_count()).unwrap_or(NonZeroUsize::MIN);
        let settings = Settings { top_k, ..Settings::default() };
        let application = Application::assemble_with_head(any_port(), settings, head, parts, vec![engine]);
        Self::run(application.await.unwrap(), bucket, results, run_count).wait_until_ready().await
    }

    /// Starts the service of [`Self::with_espresso_engine`] with `push_auth`, which authenticates the pushes.
    pub(crate) async fn with_push_auth(push_auth: PushAuth) -> Self {
        let bucket = Arc::new(TestBucket::default());
        let classified_count = Arc::default();
        let engine: Box<dyn Infer> =
            Box::new(EspressoEngine { classified_count: Arc::clone(&classified_count) });
        let parts = Parts { push_guard: Some(Arc::new(push_auth)), ..Parts::new(bucket.clone()) };
        let application = Application::assemble_with(any_port(), Settings::default(), parts, vec![engine]);
        Self::run(application.await.unwrap(), bucket, Arc::default(), classified_count)
            .wait_until_ready()
            .await
    }

    fn run(
        application: Application,
        bucket: Arc<TestBucket>,
        results: Arc<InMemoryTopic>,
        classified_count: Arc<AtomicUsize>,
    ) -> Self {
        // This call installs the metrics. The log is off because it would hide the output of the tests.
        telemetry::init("off", LogFormat::Human);
        let (address, readiness) = (application.local_addr(), application.readiness());
        let stop = CancellationToken::new();
        let task = tokio::spawn(application.run(stop.clone()));
        Self { bucket, results, classified_count, readiness, stop, task, address, client: Client::new() }
    }

    /// Waits until the service is ready.
    pub(crate) async fn wait_until_ready(self) -> Self {
        let begin = Instant::now();
        while self.get("/ready").send().await.unwrap().status() != 200 {
            assert!(
                begin.elapsed() < WAIT_TIMEOUT && !self.task.is_finished(),
                "the service did not become ready"
            );
            tokio::task::yield_now().await;
        }
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    /// Builds a request with an image as the body.
    pub(crate) fn post_image(&self, image: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post("/classify").header("content-type", "image/png").body(image)
    }

    /// Builds a request with a valid image as the body, and a query.
    pub(crate) fn post_image_with_query(&self, query: &str) -> RequestBuilder {
        self.post(&format!("/classify?{query}")).header("content-type", "image/png").body(encode_png())
    }

    /// Builds a push of a message with `data`, in the envelope of Pub/Sub.
    pub(crate) fn push(&self, data: impl Into<Bytes>) -> RequestBuilder {
        self.push_delivery(&Delivery { data: data.into(), ..Delivery::default() })
    }

    /// Builds a push of `delivery` in the envelope of Pub/Sub, with the message id 1.
    pub(crate) fn push_delivery(&self, delivery: &Delivery) -> RequestBuilder {
        let delivery = Delivery { message_id: Some("1".to_owned()), ..delivery.clone() };
        self.push_raw(delivery.to_envelope(std::time::SystemTime::UNIX_EPOCH))
    }

    /// Builds a push whose body is `body`, without an envelope.
    pub(crate) fn push_raw(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post("/pubsub").header("content-type", "application/json").body(body)
    }

    /// Builds a push of the message that announces the object `name`.
    pub(crate) fn push_event(&self, name: &str) -> RequestBuilder {
        self.push(json!({ "gcs_path": format!("gs://local/{name}") }).to_string())
    }

    /// Builds a push of the notification that Cloud Storage sends for the new object `name`.
    pub(crate) fn push_notification(&self, name: &str, generation: i64) -> RequestBuilder {
        self.push_delivery(&build_notification("OBJECT_FINALIZE", name, generation, "image/jpeg"))
    }

    pub(crate) async fn store(&self, name: &str, data: impl Into<Bytes>) {
        let name = ObjectName::new(name).unwrap();
        assert_eq!(self.bucket.create(&name, data.into(), "image/jpeg").await.unwrap(), Created::New);
    }

    /// Returns the number of images that the engine of [`Self::with_espresso_engine`] or [`Self::with_head`] has
    /// run.
    pub(crate) fn classified_count(&self) -> usize {
        self.classified_count.load(Ordering::SeqCst)
    }

    /// Returns the JSON of the object `name`, if there is one.
    pub(crate) async fn stored(&self, name: &str) -> Option<Value> {
        let content = self.bucket.content(name).await?;
        Some(serde_json::from_slice(&content).unwrap())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Returns the status and the JSON body of a response.
pub(crate) async fn read_json(response: Result<Response, reqwest::Error>) -> (u16, Value) {
    let response = response.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}")))
}

/// Returns the status and the kind of a response, and asserts that the response is a problem.
pub(crate) async fn read_problem(response: Result<reqwest::Response, reqwest::Error>) -> (u16, String) {
    let response = response.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let (status, body) = read_json(Ok(response)).await;
    assert_eq!(body["status"], status, "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    (status, body["kind"].as_str().unwrap().to_owned())
}

/// Replaces the members of `body` that depend on the compiled-in model or backend with fixed text.
pub(crate) fn hide_model_and_backend(mut body: Value) -> Value {
    let replacements = [("model", "MODEL"), ("model_sha256", "CHECKSUM"), ("backend", "BACKEND")];
    for (member, replacement) in replacements {
        if body.get(member).is_some() {
            body[member] = json!(replacement);
        }
    }
    body
}

/// Encodes a small PNG.
pub(crate) fn encode_png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(crate) fn read_sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}
