//! The test rig: a running service, a bucket that can fail, and engines that the test controls.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc as std_mpsc,
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use classify::{
    Application, Parts, Settings,
    engine::{Infer, InferError},
    model::CLASSES,
    pixels::Crop,
};
use platform::{
    bucket::{Bucket, BucketError, Created, InMemoryBucket, LooksIntact, Object, ObjectName},
    http::{Readiness, push_auth::PushAuth},
    telemetry::{self, LogFormat},
    topic::{InMemoryTopic, push::Delivery},
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Index of the class `espresso`. Every model in this project has the classes of ImageNet.
pub(crate) const ESPRESSO: usize = 967;
/// Timeout of every wait. On a machine that is not overloaded, a wait takes milliseconds.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A bucket in memory that can be unavailable or full.
#[derive(Default)]
pub(crate) struct TestBucket {
    objects: InMemoryBucket,
    /// True if every operation fails.
    down: AtomicBool,
    /// True if creating an object fails.
    full: AtomicBool,
}

impl TestBucket {
    /// Creates a bucket that numbers the versions of its objects, as Cloud Storage does.
    pub(crate) fn with_generations() -> Self {
        Self { objects: InMemoryBucket::with_generations(), ..Self::default() }
    }

    /// Replaces an object with a new version and returns the generation of the new version.
    pub(crate) fn replace(&self, name: &str, data: impl Into<Bytes>) -> i64 {
        self.objects.replace(&ObjectName::new(name).unwrap(), data.into())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.names()
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// Changes the content of an object without changing its checksum.
    pub(crate) fn damage(&self, name: &str) {
        self.objects.damage(&ObjectName::new(name).unwrap(), Bytes::new());
    }

    fn fail_if_down(&self) -> Result<(), BucketError> {
        fail_if(&self.down, "the bucket is switched off")
    }

    fn fail_if_not_writable(&self, object: &ObjectName) -> Result<(), BucketError> {
        self.fail_if_down()?;
        fail_if(&self.full, "the bucket is full")?;
        // As in a file system, each part of a name has at most 255 bytes.
        if object.as_str().split('/').any(|part| part.len() > 255) {
            let (name, reason) = (object.to_string(), "a part is too long".to_owned());
            return Err(BucketError::BadName { name, reason });
        }
        Ok(())
    }
}

fn fail_if(flag: &AtomicBool, reason: &str) -> Result<(), BucketError> {
    if flag.load(Ordering::SeqCst) { Err(BucketError::Unavailable(reason.into())) } else { Ok(()) }
}

#[async_trait]
impl Bucket for TestBucket {
    fn name(&self) -> &str {
        self.objects.name()
    }

    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError> {
        self.fail_if_not_writable(object)?;
        self.objects.create(object, data, content_type).await
    }

    async fn replace_if_broken(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
        looks_intact: LooksIntact,
    ) -> Result<Created, BucketError> {
        self.fail_if_not_writable(object)?;
        self.objects.replace_if_broken(object, data, content_type, looks_intact).await
    }

    fn replaces_broken_objects(&self) -> bool {
        self.objects.replaces_broken_objects()
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        self.fail_if_down()?;
        self.objects.read(object, limit).await
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        self.fail_if_down()?;
        self.objects.exists(object).await
    }
}

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
        Self::start_on_bucket(TestBucket::default(), settings, engines, Arc::default()).await
    }

    async fn start_on_bucket(
        bucket: TestBucket,
        settings: Settings,
        engines: Vec<Box<dyn Infer>>,
        classified_count: Arc<AtomicUsize>,
    ) -> Self {
        let (bucket, results) = (Arc::new(bucket), Arc::new(InMemoryTopic::default()));
        let parts = Parts { results_topic: Some(results.clone()), ..Parts::new(bucket.clone()) };
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
        let classified_count = Arc::default();
        let engine: Box<dyn Infer> =
            Box::new(EspressoEngine { classified_count: Arc::clone(&classified_count) });
        Self::start_on_bucket(bucket, settings, vec![engine], classified_count).await.wait_until_ready().await
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

    /// Returns the number of images that the engine of [`Self::with_espresso_engine`] has classified.
    pub(crate) fn classified_count(&self) -> usize {
        self.classified_count.load(Ordering::SeqCst)
    }

    /// Returns the JSON of the object `name`, if there is one.
    pub(crate) async fn stored(&self, name: &str) -> Option<Value> {
        let bytes = self.bucket.objects.read(&ObjectName::new(name).unwrap(), 1 << 20).await.ok()?;
        Some(serde_json::from_slice(&bytes.data).unwrap())
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
    for (member, replacement) in [("model", "MODEL"), ("backend", "BACKEND")] {
        if body.get(member).is_some() {
            body[member] = json!(replacement);
        }
    }
    body
}

/// Builds the notification that Cloud Storage sends about the object `name`.
pub(crate) fn build_notification(
    event_type: &str,
    name: &str,
    generation: i64,
    content_type: &str,
) -> Delivery {
    let version = generation.to_string();
    let attributes = [
        ("bucketId", "local"),
        ("eventTime", "2026-04-23T07:38:57.230Z"),
        ("eventType", event_type),
        ("notificationConfig", "projects/_/buckets/local/notificationConfigs/6"),
        ("objectGeneration", version.as_str()),
        ("objectId", name),
        ("payloadFormat", "JSON_API_V1"),
    ];
    Delivery {
        data: build_resource(name, generation, content_type).to_string().into(),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Delivery::default()
    }
}

/// Builds the JSON resource that describes the object `name` in notifications of Cloud Storage.
pub(crate) fn build_resource(name: &str, generation: i64, content_type: &str) -> Value {
    json!({
        "kind": "storage#object",
        "bucket": "local",
        "name": name,
        "generation": generation.to_string(),
        "metageneration": "1",
        "contentType": content_type,
        "size": "352",
    })
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

/// Returns logits whose best class is espresso.
fn espresso_logits() -> Vec<f32> {
    let mut logits = vec![0.0; CLASSES];
    logits[ESPRESSO] = 10.0;
    logits
}

/// An engine that predicts espresso for every image and counts the images.
struct EspressoEngine {
    classified_count: Arc<AtomicUsize>,
}

impl Infer for EspressoEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.classified_count.fetch_add(batch.len(), Ordering::SeqCst);
        Ok(batch.iter().map(|_| espresso_logits()).collect())
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// The result of a batch, which the test chooses.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Espresso,
    Nan,
    Panic,
}

/// An engine that reports the size of each batch to the test, then waits until the test sends a verdict.
struct GatedEngine {
    batch_sizes: mpsc::UnboundedSender<usize>,
    verdicts: std_mpsc::Receiver<Verdict>,
    /// True if the warm-up also waits for a verdict.
    gated_warm_up: bool,
}

impl Infer for GatedEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        let test_is_over = || InferError("the test is over".into());
        self.batch_sizes.send(batch.len()).map_err(|_| test_is_over())?;
        match self.verdicts.recv().map_err(|_| test_is_over())? {
            Verdict::Espresso => Ok(batch.iter().map(|_| espresso_logits()).collect()),
            Verdict::Nan => Ok(batch.iter().map(|_| vec![f32::NAN; CLASSES]).collect()),
            Verdict::Panic => panic!("panic for this test"),
        }
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        if self.gated_warm_up { self.infer(&[Crop::black(8)]).map(drop) } else { Ok(()) }
    }
}

/// Controls a [`GatedEngine`]: receives the sizes of the batches and sends the verdicts.
pub(crate) struct Gate {
    batch_sizes: mpsc::UnboundedReceiver<usize>,
    verdicts: std_mpsc::Sender<Verdict>,
}

impl Gate {
    /// Creates an engine and the gate that controls it. If `gated_warm_up` is true, the warm-up also waits
    /// for a verdict.
    pub(crate) fn new(gated_warm_up: bool) -> (Box<dyn Infer>, Self) {
        let (size_sender, batch_sizes) = mpsc::unbounded_channel();
        let (verdicts, verdict_receiver) = std_mpsc::channel();
        let engine = GatedEngine { batch_sizes: size_sender, verdicts: verdict_receiver, gated_warm_up };
        (Box::new(engine), Self { batch_sizes, verdicts })
    }

    /// Waits for the engine's next batch and returns the size of the batch.
    pub(crate) async fn next_batch(&mut self) -> usize {
        tokio::time::timeout(WAIT_TIMEOUT, self.batch_sizes.recv()).await.unwrap().unwrap()
    }

    /// Returns the number of batches that the engine has started since the last [`Self::next_batch`].
    pub(crate) fn count_further_batches(&mut self) -> usize {
        std::iter::from_fn(|| self.batch_sizes.try_recv().ok()).count()
    }

    /// Sends the verdict for the running batch, or for the next batch if none is running.
    pub(crate) fn release(&self, verdict: Verdict) {
        self.verdicts.send(verdict).unwrap();
    }
}
