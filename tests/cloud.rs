//! The pipeline as it runs on Google Cloud, on the emulators of Cloud Storage and Pub/Sub: each service
//! on its own, upload → bucket → topic → push or pull → prediction and result. Where `.ci/emulators`
//! has not put the emulators, the tests say SKIPPED and pass.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper that fails fails the test"
)]

mod common;

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
use classify::{
    Parts,
    engine::{Infer, InferError},
    network::CLASSES,
    pixels::Crop,
};
use common::{Client, PATIENCE, sample};
use platform::{
    bucket::{Bucket, BucketError, GcsBucket, ObjectName},
    contract::{GcsPath, PredictionRecord},
    testing::{PubSubEmulator, PushOptions, StorageEmulator, cloud_args},
    topic::PubSubTopic,
};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "images";
/// Index of espresso in ImageNet, which all models here know.
const ESPRESSO: usize = 967;

/// Both emulators with a bucket, a topic for images, and one for results with a subscription.
struct Cloud {
    storage: StorageEmulator,
    pubsub: PubSubEmulator,
    bucket: GcsBucket,
    images: String,
    results: String,
    results_pull: String,
    /// What was read from the results topic so far, by image.
    seen: BTreeMap<String, Vec<Value>>,
}

impl Cloud {
    /// `None` where the emulators are not there.
    async fn start() -> Option<Self> {
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

    async fn preprocess(&self, more: &[&str]) -> Running {
        let flags = self.flags().into_iter().chain(more.iter().copied().map(str::to_owned));
        let flags = ["preprocess", "--port=0"].map(str::to_owned).into_iter().chain(flags);
        let config = preprocess::Config::try_parse_from(flags).unwrap();
        let service = preprocess::Application::build(config).await.unwrap();
        let address = service.local_addr();
        Running::of(address, |stop| service.run(stop))
    }

    /// classify as its binary runs it, with the real network.
    async fn classify(&self, port: u16, more: &[&str]) -> Running {
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
    async fn classify_with(&self, port: u16, engine: impl Infer + 'static) -> Running {
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

    async fn push_to(&self, port: u16, options: &PushOptions) {
        let url = format!("http://127.0.0.1:{port}/pubsub");
        self.pubsub.create_push_subscription("classify-push", &self.images, &url, options).await.unwrap();
    }

    /// Puts `data` where preprocess puts images, and announces it as preprocess does.
    async fn announce(&self, id: &str, data: &[u8]) -> String {
        let object = format!("{id}/image.jpg");
        self.storage.upload(BUCKET, &object, "image/jpeg", data.to_vec().into()).await.unwrap();
        let path = format!("gs://{BUCKET}/{object}");
        let event = json!({ "gcs_path": path }).to_string();
        self.pubsub.publish(&self.images, event.as_bytes(), &json!({})).await.unwrap();
        path
    }

    /// Reads the results topic until it has told of `images` different images.
    async fn results_of(&mut self, images: usize) {
        let begin = Instant::now();
        while self.seen.len() < images {
            assert!(begin.elapsed() < PATIENCE, "{:?}", self.seen);
            self.read_results().await;
        }
    }

    async fn read_results(&mut self) {
        for message in self.pubsub.pull(&self.results_pull).await.unwrap() {
            let result: Value = serde_json::from_slice(&message.data).unwrap();
            let path = result["gcs_path"].as_str().unwrap().to_owned();
            self.seen.entry(path).or_default().push(result);
        }
    }

    /// The one result of `path`.
    fn result(&self, path: &str) -> &Value {
        let results = self.seen.get(path).map(Vec::as_slice).unwrap_or_default();
        let [result] = results else { panic!("{} results of {path}: {results:?}", results.len()) };
        result
    }

    async fn object(&self, name: &str) -> Option<Value> {
        match self.bucket.read(&ObjectName::new(name).unwrap(), 1 << 20).await {
            Ok(object) => Some(serde_json::from_slice(&object.data).unwrap()),
            Err(BucketError::NotFound(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Waits until the object is there.
    async fn await_object(&self, name: &str) -> Value {
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
struct Running {
    url: String,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn of<F>(address: SocketAddr, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { url: format!("http://{address}"), stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("drains").unwrap().unwrap();
    }
}

fn client(preprocess: &Running, classify: Option<&Running>) -> Client {
    let classify = classify.map_or_else(String::new, |classify| classify.url.clone());
    Client { http: reqwest::Client::new(), preprocess: preprocess.url.clone(), classify }
}

/// A port that is free now, for a service that is started and stopped and started again.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Hands every push on to the service on `port`; its own port, and how many came.
async fn counting_proxy(port: u16) -> (u16, Arc<AtomicUsize>) {
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
fn photo(number: u8) -> Vec<u8> {
    let mut photo = sample("coffee.jpg");
    photo.push(number);
    photo
}

/// Says espresso to everything, and counts how often it is asked.
#[derive(Clone, Default)]
struct Espresso(Arc<AtomicUsize>);

impl Espresso {
    fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Infer for Espresso {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.0.fetch_add(batch.len(), Ordering::SeqCst);
        let mut outputs = vec![0.0; CLASSES];
        outputs[ESPRESSO] = 10.0;
        Ok(vec![outputs; batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// Does as the engine inside does, after a while.
struct Slow<E>(E, Duration);

impl<E: Infer> Infer for Slow<E> {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        std::thread::sleep(self.1);
        self.0.infer(batch)
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// Gives nothing that could be an answer, whatever the image.
struct Broken;

impl Infer for Broken {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        Ok(vec![vec![f32::NAN; CLASSES]; batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_upload_to_prediction_and_result() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let classify = cloud.classify(0, &[]).await;
    let port: u16 = classify.url.rsplit(':').next().unwrap().parse().unwrap();
    cloud.push_to(port, &PushOptions::default()).await;
    let preprocess = cloud.preprocess(&["--prep-topic=preprocessed-images"]).await;
    let client = client(&preprocess, Some(&classify));

    let (status, uploaded) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{uploaded}");
    let id = uploaded["id"].as_str().unwrap();
    let path = format!("gs://{BUCKET}/{id}/image.jpg");
    assert_eq!(uploaded["gcs_path"], path);

    let PredictionRecord::Done(prediction) = client.prediction(id).await else { panic!("it failed") };
    assert_eq!(prediction.label, "espresso");
    assert_eq!(prediction.gcs_path, Some(path.parse::<GcsPath>().unwrap()));

    cloud.results_of(1).await;
    let result = cloud.result(&path).clone();
    assert_eq!(result["label"], "espresso");
    assert_eq!(result["id"], id);
    assert_eq!(result["model"], prediction.model);
    assert!(result["predicted_at"].as_str().unwrap().ends_with('Z'), "{result}");
    let record = cloud.object(&format!("{id}/prediction.json")).await.unwrap();
    for member in ["gcs_path", "label", "confidence", "top", "model", "backend"] {
        assert_eq!(result[member], record[member], "{member}");
    }

    // Once more: it is known, and nothing is told again.
    let (_, again) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!((&again["id"], &again["duplicate"]), (&uploaded["id"], &json!(true)));
    client.must_upload(sample("chelsea.jpg")).await;
    cloud.results_of(2).await;
    cloud.result(&path);
    preprocess.stop().await;
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_copied_into_the_bucket_is_classified_once_a_version() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let engine = Espresso::default();
    let classify = cloud.classify_with(port, engine.clone()).await;
    cloud.push_to(port, &PushOptions::default()).await;

    for version in 1..=2 {
        let resource = cloud.storage.upload(BUCKET, "in/my photo.jpg", "image/jpeg", photo(version).into());
        let resource = resource.await.unwrap();
        let generation = resource["generation"].as_str().unwrap();
        let attributes = json!({
            "eventType": "OBJECT_FINALIZE",
            "payloadFormat": "JSON_API_V1",
            "bucketId": BUCKET,
            "objectId": "in/my photo.jpg",
            "objectGeneration": generation,
        });
        let notification = resource.to_string();
        let message = json!({ "gcs_path": "gs://images/in/my photo.jpg" }).to_string();
        // The bucket says it, twice, and somebody else says it, too.
        for (data, attributes) in
            [(&notification, &attributes), (&message, &json!({})), (&notification, &attributes)]
        {
            cloud.pubsub.publish(&cloud.images, data.as_bytes(), attributes).await.unwrap();
        }
        let prediction = cloud.await_object(&format!("in/my photo.jpg.{generation}.prediction.json")).await;
        assert_eq!(prediction["label"], "espresso");
        // The prediction is an object as well, and announced; a text is, too.
        for (name, content_type) in [
            (format!("in/my photo.jpg.{generation}.prediction.json"), "application/json"),
            (format!("in/{version}.txt"), "text/plain"),
        ] {
            let attributes = json!({
                "eventType": "OBJECT_FINALIZE",
                "bucketId": BUCKET,
                "objectId": name,
                "objectGeneration": "1",
            });
            let resource = json!({ "bucket": BUCKET, "name": name, "contentType": content_type });
            cloud.pubsub.publish(&cloud.images, resource.to_string().as_bytes(), &attributes).await.unwrap();
        }
    }
    // Announced last, so that the others have had their time; deliveries have no order, and classify's
    // own tests hold each of the ignored ones by itself.
    let path = cloud.announce(&"0".repeat(32), &photo(9)).await;
    cloud.results_of(2).await;
    cloud.result(&path);
    let results = &cloud.seen["gs://images/in/my photo.jpg"];
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!(engine.asked(), 3, "two versions and the last one");
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_slower_than_the_ack_deadline_makes_no_second_prediction() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let engine = Espresso::default();
    let classify = cloud.classify_with(port, Slow(engine.clone(), Duration::from_secs(13))).await;
    let options = PushOptions { ack_deadline_seconds: 10, ..PushOptions::default() };
    let (between, pushes) = counting_proxy(port).await;
    cloud.push_to(between, &options).await;
    let id = "0".repeat(32);
    let path = cloud.announce(&id, &sample("coffee.jpg")).await;
    cloud.await_object(&format!("{id}/prediction.json")).await;
    assert!(pushes.load(Ordering::SeqCst) >= 2, "it was not delivered again in the meantime");
    cloud.results_of(1).await;
    assert_eq!(cloud.result(&path)["label"], "espresso");
    assert_eq!(engine.asked(), 1, "delivered again while the first was under way");
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_classify_is_down_refuses_or_is_restarted() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    cloud.push_to(port, &PushOptions::default()).await;
    let preprocess = cloud.preprocess(&["--prep-topic=projects/test/topics/preprocessed-images"]).await;
    let client = client(&preprocess, None);
    let mut ids = Vec::new();

    // Nobody listens.
    for number in 0..3 {
        ids.push(client.must_upload(photo(number)).await);
    }
    // Somebody listens, and is not ready.
    let refused = Arc::new(Notify::new());
    let refusing = any({
        let refused = Arc::clone(&refused);
        move || {
            refused.notify_one();
            async { StatusCode::SERVICE_UNAVAILABLE }
        }
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let app = Router::new().fallback(refusing);
    let not_ready = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    for number in 3..6 {
        ids.push(client.must_upload(photo(number)).await);
    }
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, refused.notified()).await.expect("it is tried again and again");
    }
    not_ready.abort();
    let _ = not_ready.await;

    // Two lives, with uploads before, during and after.
    for life in 0..2_u8 {
        let slow = Slow(Espresso::default(), Duration::from_millis(200));
        let classify = cloud.classify_with(port, slow).await;
        for number in 0..5 {
            ids.push(client.must_upload(photo(10 + 10 * life + number)).await);
        }
        cloud.results_of(usize::from(life) * 5 + 2).await;
        classify.stop().await;
    }
    let classify = cloud.classify_with(port, Espresso::default()).await;
    for id in &ids {
        assert_eq!(client.label(id).await, "espresso");
    }
    cloud.results_of(ids.len()).await;
    classify.stop().await;
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_recorded_or_becomes_a_dead_letter() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let port = free_port();
    let dead = cloud.pubsub.create_topic("unclassified-images").await.unwrap();
    let dead_pull = cloud.pubsub.create_pull_subscription("unclassified-images-pull", &dead).await.unwrap();
    let options = PushOptions { dead_letter_topic: Some(dead), ..PushOptions::default() };
    cloud.push_to(port, &options).await;
    let classify = cloud.classify_with(port, Broken).await;

    // No image: on record and on the results topic, so that nobody waits in vain.
    let id = "1".repeat(32);
    let path = cloud.announce(&id, b"hello").await;
    let record = cloud.await_object(&format!("{id}/prediction.json")).await;
    assert_eq!(record["error"]["reason"], "not_an_image");
    cloud.results_of(1).await;
    assert_eq!(cloud.result(&path)["error"]["reason"], "not_an_image");
    // No event at all: acknowledged, or it would be the first dead letter.
    cloud.pubsub.publish(&cloud.images, b"\xff\xfe", &json!({ "a": "b" })).await.unwrap();

    // An image that the model has no answer for: refused, until it is a dead letter.
    let id = "2".repeat(32);
    let path = cloud.announce(&id, &sample("coffee.jpg")).await;
    let begin = Instant::now();
    let letters = loop {
        let letters = cloud.pubsub.pull(&dead_pull).await.unwrap();
        if !letters.is_empty() {
            break letters;
        }
        assert!(begin.elapsed() < PATIENCE, "no dead letter");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    let event: Value = serde_json::from_slice(&letter.data).unwrap();
    assert_eq!(event["gcs_path"], path);
    assert_eq!(cloud.object(&format!("{id}/prediction.json")).await, None);
    classify.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_be_announced_is_completed_by_sending_it_again() {
    let Some(mut cloud) = Cloud::start().await else { return };
    let preprocess = cloud.preprocess(&["--prep-topic=later", "--cloud-timeout=5"]).await;
    let client = client(&preprocess, None);
    let (status, body) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!(
        (status, &body["kind"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("topic_unavailable")),
        "{body}"
    );

    let topic = cloud.pubsub.create_topic("later").await.unwrap();
    cloud.images = topic;
    let port = free_port();
    let classify = cloud.classify_with(port, Espresso::default()).await;
    cloud.push_to(port, &PushOptions::default()).await;
    let (status, body) = client.upload(sample("coffee.jpg")).await.unwrap();
    assert_eq!((status, &body["duplicate"]), (StatusCode::OK, &json!(true)), "{body}");
    assert_eq!(client.label(body["id"].as_str().unwrap()).await, "espresso");
    cloud.results_of(1).await;
    classify.stop().await;
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classify_pulls_and_loses_nothing_to_a_restart() {
    let Some(mut cloud) = Cloud::start().await else { return };
    cloud.pubsub.create_pull_subscription("classify-pull", &cloud.images).await.unwrap();
    let preprocess = cloud.preprocess(&["--prep-topic=preprocessed-images"]).await;
    let client = client(&preprocess, None);
    let pull = ["--mode=pull", "--prep-subscription=classify-pull"];
    let mut ids = Vec::new();
    let classify = cloud.classify(0, &pull).await;
    for number in 0..8 {
        ids.push(client.must_upload(photo(number)).await);
    }
    cloud.results_of(2).await;
    // With some of the rest under way. Restarted only once: the emulator goes on sending messages to a
    // stream that was closed, by turns with the one that is open, and each comes back only after its lease.
    classify.stop().await;
    for number in 8..12 {
        ids.push(client.must_upload(photo(number)).await);
    }
    let classify = cloud.classify(0, &pull).await;
    for id in &ids {
        assert_eq!(client.label(id).await, "espresso");
    }
    cloud.results_of(ids.len()).await;
    let ready = reqwest::get(format!("{}/ready", classify.url)).await.unwrap();
    let ready: Value = ready.json().await.unwrap();
    assert_eq!(ready["subscription"], "projects/test/subscriptions/classify-pull");
    classify.stop().await;
    // Acknowledged, all of them: nothing is left to be delivered.
    assert_eq!(cloud.pubsub.pull("projects/test/subscriptions/classify-pull").await.unwrap(), []);
    preprocess.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_there_stops_classify_with_its_name() {
    let Some(cloud) = Cloud::start().await else { return };
    let classify = cloud.classify(0, &["--mode=pull", "--prep-subscription=nowhere"]).await;
    let ended = tokio::time::timeout(PATIENCE, classify.task).await.expect("it ends").unwrap();
    let error = format!("{:#}", ended.unwrap_err());
    assert!(error.contains("projects/test/subscriptions/nowhere"), "{error}");
}
