//! A running service, with a bucket and a topic whose failures the test controls.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use contract::{ImageId, ModelId, ModelKey};
use platform::{
    bucket::{Bucket, BucketError, Created, InMemoryBucket, LooksIntact, Object, ObjectName},
    topic::{Message, PublishPermit, Topic, TopicError},
};
use preprocess::{Application, Settings};
use reqwest::{
    Response, StatusCode,
    multipart::{Form, Part},
};
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Returns the content of the file `name` in the folder `samples/` of the repository.
pub(crate) fn read_sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Returns the model that classifies the images of [`TestApp::start`].
pub(crate) fn current_model() -> ModelId {
    ModelId::new("flowers", "0b".repeat(32))
}

/// A service that runs on a free port.
pub(crate) struct TestApp {
    pub(crate) bucket: Arc<TestBucket>,
    pub(crate) topic: Arc<TestTopic>,
    pub(crate) stop: CancellationToken,
    address: SocketAddr,
    client: reqwest::Client,
    task: JoinHandle<()>,
}

impl TestApp {
    /// Starts a service with these settings. [`current_model`] classifies the images.
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::start_with_model(settings, Some(current_model().key())).await
    }

    /// Starts a service with these settings. `model` classifies the images, if it is known.
    pub(crate) async fn start_with_model(settings: Settings, model: Option<ModelKey>) -> Self {
        let bucket = Arc::new(TestBucket::default());
        let topic = Arc::new(TestTopic::default());
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let application =
            Application::assemble(any_port, settings, bucket.clone(), Some(topic.clone()), model)
                .await
                .unwrap();
        let address = application.local_addr();
        let stop = CancellationToken::new();
        let task = tokio::spawn(application.run(stop.clone()));
        Self { bucket, topic, stop, address, client: reqwest::Client::new(), task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// Sends `POST /preprocess` with this body.
    pub(crate) async fn post(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
        self.upload_request().header("content-type", content_type).body(body).send().await.unwrap()
    }

    /// Sends `POST /preprocess` with this multipart form.
    pub(crate) async fn post_form(&self, form: Form) -> Response {
        self.upload_request().multipart(form).send().await.unwrap()
    }

    /// Builds a request `POST /preprocess` without a body.
    pub(crate) fn upload_request(&self) -> reqwest::RequestBuilder {
        self.client.post(self.url("/preprocess"))
    }

    /// Waits until the service has stopped. The test stops the service with [`Self::stop`].
    pub(crate) async fn wait_until_stopped(self) {
        self.task.await.unwrap();
    }
}

/// Returns a form that has each of these files in a field named `file`.
pub(crate) fn file_form<const N: usize>(files: [(&str, Vec<u8>); N]) -> Form {
    files.into_iter().fold(Form::new(), |form, (name, bytes)| {
        form.part("file", Part::bytes(bytes).file_name(name.to_owned()))
    })
}

/// Returns the status and the parsed body of a response.
pub(crate) async fn read_json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, response.json().await.unwrap())
}

/// Returns the status and the body of a problem response. The body is returned without the request id, which
/// differs for every request.
pub(crate) async fn read_problem(response: Response) -> (u16, Value) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let mut body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status);
    assert!(body.as_object_mut().unwrap().remove("request_id").is_some());
    (status, body)
}

/// Removes AVIF from the accepted formats in a response. Only a build with the feature `avif` lists it.
pub(crate) fn without_avif(body: &Value) -> Value {
    body.to_string().replace(",\"AVIF\"", "").replace(", AVIF", "").parse().unwrap()
}

/// A bucket in memory that fails while `broken` is true. Every read notifies `was_read`.
#[derive(Default)]
pub(crate) struct TestBucket {
    inner: InMemoryBucket,
    pub(crate) broken: AtomicBool,
    pub(crate) was_read: Notify,
}

impl TestBucket {
    /// Stores an object whose content is JSON.
    pub(crate) async fn store(&self, name: String, content: impl Into<Bytes>) {
        let name = ObjectName::new(name).unwrap();
        let created = self.inner.create(&name, content.into(), "application/json").await;
        assert_eq!(created.unwrap(), Created::New);
    }

    /// Returns the stored image of an upload.
    pub(crate) async fn read_image(&self, id: &ImageId) -> Bytes {
        self.inner.read(&ObjectName::new(id.image_object_name()).unwrap(), usize::MAX).await.unwrap().data
    }

    /// Changes the content of an object without changing its checksum.
    pub(crate) fn damage(&self, name: String) {
        self.inner.damage(&ObjectName::new(name).unwrap(), Bytes::new());
    }

    /// Writes an object without a checksum.
    pub(crate) fn store_without_checksum(&self, name: String, content: impl Into<Bytes>) {
        self.inner.replace(&ObjectName::new(name).unwrap(), content.into());
    }

    fn fail_if_broken(&self) -> Result<(), BucketError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(BucketError::Unavailable("the disk is on fire".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Bucket for TestBucket {
    fn name(&self) -> &str {
        "test-bucket"
    }

    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError> {
        self.fail_if_broken()?;
        self.inner.create(object, data, content_type).await
    }

    async fn replace_if_broken(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
        looks_intact: LooksIntact,
    ) -> Result<Created, BucketError> {
        self.fail_if_broken()?;
        self.inner.replace_if_broken(object, data, content_type, looks_intact).await
    }

    fn replaces_broken_objects(&self) -> bool {
        self.inner.replaces_broken_objects()
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        self.fail_if_broken()?;
        let result = self.inner.read(object, limit).await;
        self.was_read.notify_one();
        result
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        self.fail_if_broken()?;
        self.inner.exists(object).await
    }

    async fn check_health(&self) -> Result<(), BucketError> {
        self.fail_if_broken()
    }
}

/// A topic that records its messages. Publishing fails while `broken` is true, and blocks while `open` is
/// false. Every call of [`Topic::publish`] notifies `publish_called`.
///
/// While `full` is true, the topic has no capacity. While `congested` is true, it gives no permits. Every call of
/// [`Topic::acquire_publish_permit`] notifies `permit_requested`.
pub(crate) struct TestTopic {
    published: Mutex<Vec<Message>>,
    pub(crate) broken: AtomicBool,
    pub(crate) full: AtomicBool,
    pub(crate) congested: AtomicBool,
    pub(crate) permit_requested: Notify,
    pub(crate) publish_called: Notify,
    pub(crate) open: watch::Sender<bool>,
}

impl Default for TestTopic {
    fn default() -> Self {
        Self {
            published: Mutex::default(),
            broken: AtomicBool::default(),
            full: AtomicBool::default(),
            congested: AtomicBool::default(),
            permit_requested: Notify::new(),
            publish_called: Notify::new(),
            open: watch::Sender::new(true),
        }
    }
}

impl TestTopic {
    pub(crate) fn published(&self) -> Vec<Message> {
        self.published.lock().unwrap().clone()
    }

    /// Forgets every message, as after each has been delivered or lost.
    pub(crate) fn clear(&self) {
        self.published.lock().unwrap().clear();
    }
}

#[async_trait]
impl Topic for TestTopic {
    async fn publish(&self, message: Message) -> Result<String, TopicError> {
        self.publish_called.notify_one();
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        if self.broken.load(Ordering::SeqCst) {
            return Err(TopicError::Unavailable("the broker is on fire".into()));
        }
        let mut published = self.published.lock().unwrap();
        published.push(message);
        Ok(published.len().to_string())
    }

    fn check_capacity(&self) -> Result<(), TopicError> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(TopicError::Full { retry_after: Duration::from_secs(7) }),
            false => Ok(()),
        }
    }

    async fn acquire_publish_permit(&self, max_wait: Duration) -> Result<PublishPermit, TopicError> {
        self.permit_requested.notify_one();
        if self.congested.load(Ordering::SeqCst) {
            tokio::time::sleep(max_wait).await;
            return Err(TopicError::Full { retry_after: Duration::from_secs(7) });
        }
        Ok(PublishPermit::default())
    }

    async fn count_ahead(&self, key: &str) -> Result<Option<u64>, TopicError> {
        let published = self.published();
        let has_key =
            |message: &Message| preprocess::announced_image_id(message).is_some_and(|id| id.as_str() == key);
        Ok(published.iter().position(has_key).map(|position| position as u64))
    }

    fn finds_every_message(&self) -> bool {
        true
    }

    async fn check_health(&self) -> Result<(), TopicError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(TopicError::Unavailable("the broker is on fire".into())),
            false => Ok(()),
        }
    }
}
