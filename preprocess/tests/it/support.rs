//! A running service with a bucket and a topic whose failures tests control.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use contract::ImageId;
use platform::{
    bucket::{Bucket, BucketError, Created, InMemoryBucket, Object, ObjectName},
    topic::{Message, Topic, TopicError},
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

/// Reads a file of the folder `samples/` of the repository.
pub(crate) fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A service that runs on a free port.
pub(crate) struct TestApp {
    pub(crate) bucket: Arc<TestBucket>,
    pub(crate) topic: Arc<TestTopic>,
    pub(crate) stop: CancellationToken,
    address: SocketAddr,
    client: reqwest::Client,
    running: JoinHandle<anyhow::Result<()>>,
}

impl TestApp {
    pub(crate) async fn start(settings: Settings) -> Self {
        let bucket = Arc::new(TestBucket::default());
        let topic = Arc::new(TestTopic::default());
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let application =
            Application::assemble(any_port, settings, bucket.clone(), Some(topic.clone())).await.unwrap();
        let address = application.local_addr();
        let stop = CancellationToken::new();
        let running = tokio::spawn(application.run(stop.clone()));
        Self { bucket, topic, stop, address, client: reqwest::Client::new(), running }
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

    pub(crate) async fn post(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request().header("content-type", content_type).body(body).send().await.unwrap()
    }

    pub(crate) async fn post_form(&self, form: Form) -> Response {
        self.request().multipart(form).send().await.unwrap()
    }

    pub(crate) fn request(&self) -> reqwest::RequestBuilder {
        self.client.post(self.url("/preprocess"))
    }

    /// Waits until the service has stopped. Does not stop it.
    pub(crate) async fn wait_until_stopped(self) {
        self.running.await.unwrap().unwrap();
    }
}

/// Returns a form with these files in the field `file`.
pub(crate) fn form<const N: usize>(files: [(&str, Vec<u8>); N]) -> Form {
    files.into_iter().fold(Form::new(), |form, (name, bytes)| {
        form.part("file", Part::bytes(bytes).file_name(name.to_owned()))
    })
}

/// Returns the status and the parsed body of a response.
pub(crate) async fn json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, response.json().await.unwrap())
}

/// Returns status and body of a problem response, without the request id, which differs each time.
pub(crate) async fn problem(response: Response) -> (u16, Value) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let mut body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status);
    assert!(body.as_object_mut().unwrap().remove("request_id").is_some());
    (status, body)
}

/// A bucket in memory that fails while `broken` is set and signals each read.
#[derive(Default)]
pub(crate) struct TestBucket {
    inner: InMemoryBucket,
    pub(crate) broken: AtomicBool,
    pub(crate) was_read: Notify,
}

impl TestBucket {
    pub(crate) async fn put(&self, object: String, content: &'static str) {
        let object = ObjectName::new(object).unwrap();
        let created =
            self.inner.create(&object, Bytes::from_static(content.as_bytes()), "application/json").await;
        assert_eq!(created.unwrap(), Created::New);
    }

    pub(crate) async fn image(&self, id: &ImageId) -> Bytes {
        self.inner.read(&ObjectName::new(id.image_object()).unwrap(), usize::MAX).await.unwrap().data
    }

    fn check(&self) -> Result<(), BucketError> {
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
        self.check()?;
        self.inner.create(object, data, content_type).await
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        self.check()?;
        let outcome = self.inner.read(object, limit).await;
        self.was_read.notify_one();
        outcome
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        self.check()?;
        self.inner.exists(object).await
    }
}

/// A topic that records messages, fails while `broken` is set, and blocks while `open` is false.
pub(crate) struct TestTopic {
    published: Mutex<Vec<Message>>,
    pub(crate) broken: AtomicBool,
    pub(crate) publishing: Notify,
    pub(crate) open: watch::Sender<bool>,
}

impl Default for TestTopic {
    fn default() -> Self {
        Self {
            published: Mutex::default(),
            broken: AtomicBool::default(),
            publishing: Notify::new(),
            open: watch::Sender::new(true),
        }
    }
}

impl TestTopic {
    pub(crate) fn published(&self) -> Vec<Message> {
        self.published.lock().unwrap().clone()
    }
}

#[async_trait]
impl Topic for TestTopic {
    async fn publish(&self, message: Message) -> Result<String, TopicError> {
        self.publishing.notify_one();
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        if self.broken.load(Ordering::SeqCst) {
            return Err(TopicError::Unavailable("the broker is on fire".into()));
        }
        let mut published = self.published.lock().unwrap();
        published.push(message);
        Ok(published.len().to_string())
    }
}
