//! A running service, a bucket that can fail, and engines that do as they are told.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use classify::{
    Application, Settings,
    engine::{Infer, InferError},
    network::CLASSES,
    pixels::Crop,
};
use platform::{
    bucket::{Bucket, BucketError, Created, MemoryBucket, ObjectName},
    http::Readiness,
    telemetry::{self, LogFormat},
    topic::push::Delivery,
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Index of espresso in ImageNet, which all models here know.
pub(crate) const ESPRESSO: usize = 967;
/// What these tests wait for comes in milliseconds; this is for machines that are very busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bucket in memory that can be switched off.
#[derive(Default)]
pub(crate) struct TestBucket {
    objects: MemoryBucket,
    down: AtomicBool,
}

impl TestBucket {
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), BucketError> {
        if self.down.load(Ordering::SeqCst) {
            Err(BucketError::Unavailable("switched off".into()))
        } else {
            Ok(())
        }
    }
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
        self.check()?;
        // As on disk.
        if object.as_str().split('/').any(|part| part.len() > 255) {
            let (name, reason) = (object.to_string(), "a part is too long".to_owned());
            return Err(BucketError::BadName { name, reason });
        }
        self.objects.create(object, data, content_type).await
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Bytes, BucketError> {
        self.check()?;
        self.objects.read(object, limit).await
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        self.check()?;
        self.objects.exists(object).await
    }
}

/// A running service.
pub(crate) struct Rig {
    pub(crate) bucket: Arc<TestBucket>,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<anyhow::Result<()>>,
    address: SocketAddr,
    client: Client,
}

impl Rig {
    /// With the compiled-in network, ready.
    pub(crate) async fn real() -> Self {
        let bucket = Arc::new(TestBucket::default());
        let application =
            Application::assemble(any_port(), Settings::default(), bucket.clone()).await.unwrap();
        Self::run(application, bucket).ready().await
    }

    /// With `engines`, not necessarily ready.
    pub(crate) async fn starting(settings: Settings, engines: Vec<Box<dyn Infer>>) -> Self {
        let bucket = Arc::new(TestBucket::default());
        let application =
            Application::assemble_with(any_port(), settings, bucket.clone(), engines).await.unwrap();
        Self::run(application, bucket)
    }

    /// With `engines`, ready.
    pub(crate) async fn with(settings: Settings, engines: Vec<Box<dyn Infer>>) -> Self {
        Self::starting(settings, engines).await.ready().await
    }

    /// With an engine that always answers espresso, ready.
    pub(crate) async fn espresso() -> Self {
        Self::with(Settings::default(), vec![Box::new(Espresso)]).await
    }

    fn run(application: Application, bucket: Arc<TestBucket>) -> Self {
        // For the metrics; the log would drown what the tests say.
        telemetry::init("off", LogFormat::Human);
        let (address, readiness) = (application.local_addr(), application.readiness());
        let stop = CancellationToken::new();
        let running = tokio::spawn(application.run(stop.clone()));
        Self { bucket, readiness, stop, running, address, client: Client::new() }
    }

    pub(crate) async fn ready(self) -> Self {
        let begin = Instant::now();
        while self.get("/ready").send().await.unwrap().status() != 200 {
            assert!(
                begin.elapsed() < PATIENCE && !self.running.is_finished(),
                "the service does not become ready"
            );
            tokio::task::yield_now().await;
        }
        self
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    /// Sends an image as the body.
    pub(crate) fn image(&self, image: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post("/classify").header("content-type", "image/png").body(image)
    }

    /// Sends a good image, with a query.
    pub(crate) fn image_with(&self, query: &str) -> RequestBuilder {
        self.post(&format!("/classify?{query}")).header("content-type", "image/png").body(png())
    }

    /// Pushes `data`, wrapped as Pub/Sub does.
    pub(crate) fn push(&self, data: impl Into<Bytes>) -> RequestBuilder {
        let delivery =
            Delivery { data: data.into(), message_id: Some("1".to_owned()), ..Delivery::default() };
        self.push_raw(delivery.to_envelope(std::time::SystemTime::UNIX_EPOCH))
    }

    pub(crate) fn push_raw(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post("/pubsub").header("content-type", "application/json").body(body)
    }

    /// Pushes the event of the object `name`.
    pub(crate) fn push_event(&self, name: &str) -> RequestBuilder {
        self.push(json!({ "gcs_path": format!("gs://local/{name}") }).to_string())
    }

    pub(crate) async fn store(&self, name: &str, data: impl Into<Bytes>) {
        let name = ObjectName::new(name).unwrap();
        assert_eq!(self.bucket.create(&name, data.into(), "image/jpeg").await.unwrap(), Created::New);
    }

    pub(crate) async fn stored(&self, name: &str) -> Option<Value> {
        let bytes = self.bucket.objects.read(&ObjectName::new(name).unwrap(), 1 << 20).await.ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
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

/// Status and JSON body of an answer.
pub(crate) async fn answer(response: Result<Response, reqwest::Error>) -> (u16, Value) {
    let response = response.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}")))
}

/// `body` without what depends on the compiled-in model and backend.
pub(crate) fn anonymous(mut body: Value) -> Value {
    for (member, replacement) in [("model", "MODEL"), ("backend", "BACKEND")] {
        if body.get(member).is_some() {
            body[member] = json!(replacement);
        }
    }
    body
}

/// A small PNG.
pub(crate) fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(crate) fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Outputs that say espresso.
fn espresso() -> Vec<f32> {
    let mut outputs = vec![0.0; CLASSES];
    outputs[ESPRESSO] = 10.0;
    outputs
}

/// An engine that always says espresso.
pub(crate) struct Espresso;

impl Infer for Espresso {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        Ok(batch.iter().map(|_| espresso()).collect())
    }
}

/// What a gated engine does with its next batch.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Espresso,
    Nan,
    Panic,
}

/// An engine that announces each batch and waits to be told what to do with it.
struct Gated {
    announce: mpsc::UnboundedSender<usize>,
    verdicts: std_mpsc::Receiver<Verdict>,
    gated_start: bool,
}

impl Infer for Gated {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        let gone = |_| InferError("the test is over".into());
        self.announce.send(batch.len()).map_err(|_| InferError("the test is over".into()))?;
        match self.verdicts.recv().map_err(gone)? {
            Verdict::Espresso => Ok(batch.iter().map(|_| espresso()).collect()),
            Verdict::Nan => Ok(batch.iter().map(|_| vec![f32::NAN; CLASSES]).collect()),
            Verdict::Panic => panic!("the test wants it so"),
        }
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        if self.gated_start { self.infer(&[Crop::black(8)]).map(drop) } else { Ok(()) }
    }
}

/// The test's side of a gated engine.
pub(crate) struct Gate {
    announced: mpsc::UnboundedReceiver<usize>,
    verdicts: std_mpsc::Sender<Verdict>,
}

impl Gate {
    /// An engine and its gate; with `gated_start` the warm-up goes through the gate as well.
    pub(crate) fn new(gated_start: bool) -> (Box<dyn Infer>, Self) {
        let (announce, announced) = mpsc::unbounded_channel();
        let (sender, verdicts) = std_mpsc::channel();
        (Box::new(Gated { announce, verdicts, gated_start }), Self { announced, verdicts: sender })
    }

    /// Waits until the engine has taken a batch, and tells its size.
    pub(crate) async fn taken(&mut self) -> usize {
        tokio::time::timeout(PATIENCE, self.announced.recv()).await.unwrap().unwrap()
    }

    /// Lets a batch go, the one under way or the next.
    pub(crate) fn release(&self, verdict: Verdict) {
        self.verdicts.send(verdict).unwrap();
    }
}
