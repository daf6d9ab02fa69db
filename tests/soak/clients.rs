//! Honest clients upload photos, retry refused uploads politely, and ask for the predictions.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Response, StatusCode, header::RETRY_AFTER, multipart};
use serde_json::Value;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, error::TryRecvError, unbounded_channel},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Soak,
    checks::{NO_ANSWER, Tally},
};

/// Number of honest clients. Each uploads one photo at a time.
const CLIENT_COUNT: usize = 8;
const SAMPLES: [&str; 3] = ["chelsea.jpg", "coffee.jpg", "rocket.jpg"];
/// Timeout of a request, longer than the request timeout of both services.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// Seconds that `GET /predictions/{id}` waits for a prediction.
const WAIT_SECONDS: u32 = 5;
/// Pause after a refusal without Retry-After.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failed connection.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Maximum time between the last upload and the last prediction. After an outage, an announcement waits for up
/// to a minute, and a slow machine needs time for its backlog.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

/// An accepted upload.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) id: String,
    /// Label that an undisturbed program has given to the same picture.
    label: String,
}

/// The uploads of all honest clients.
#[derive(Default)]
pub(crate) struct Uploads {
    /// Label of each sample.
    labels: Mutex<Vec<String>>,
    next_number: AtomicUsize,
    accepted: Mutex<Vec<Upload>>,
    predicted_count: AtomicUsize,
    lost_count: AtomicUsize,
    /// Refused and failed requests, by status.
    pub(crate) refusals: Tally,
}

/// Outcome of a request for a prediction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PredictionAnswer {
    Right,
    /// The prediction has another label, or the record of a failure.
    Wrong(String),
    Pending,
    /// The program does not know the id of an upload that it has accepted.
    Unknown,
    /// The program may answer after this pause.
    Refused(Duration),
}

impl Uploads {
    /// Uploads every sample to an undisturbed program, and remembers the label of each.
    pub(crate) async fn learn_labels(&self, soak: &Soak) {
        let http = http_client();
        for sample in SAMPLES {
            let id = loop {
                match post_photo(soak, &http, read_sample(sample), 0).await {
                    Ok(id) => break id,
                    Err(pause) => tokio::time::sleep(pause).await,
                }
            };
            let url = soak.program.preprocess().url(&format!("/predictions/{id}?wait={WAIT_SECONDS}"));
            let label = loop {
                let response = http.get(&url).send().await.unwrap();
                if response.status() == StatusCode::OK {
                    let prediction: Value = response.json().await.unwrap();
                    break prediction["label"].as_str().expect("a label").to_owned();
                }
            };
            println!("{sample}: {label}");
            self.labels.lock().unwrap().push(label);
        }
    }

    pub(crate) fn accepted(&self) -> Vec<Upload> {
        self.accepted.lock().unwrap().clone()
    }

    pub(crate) fn accepted_count(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    pub(crate) fn predicted_count(&self) -> usize {
        self.predicted_count.load(Ordering::SeqCst)
    }

    pub(crate) fn count_lost(&self) {
        self.lost_count.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn lost_count(&self) -> usize {
        self.lost_count.load(Ordering::SeqCst)
    }

    /// Returns a photo that was not uploaded before, and its label.
    ///
    /// The decoder ignores the bytes after the picture, but the id of an upload depends on them.
    fn next_photo(&self) -> (usize, Vec<u8>, String) {
        let number = self.next_number.fetch_add(1, Ordering::SeqCst);
        let sample = number % SAMPLES.len();
        let mut photo = read_sample(SAMPLES[sample]);
        photo.extend_from_slice(&number.to_le_bytes());
        (number, photo, self.labels.lock().unwrap()[sample].clone())
    }
}

/// The tasks of all honest clients.
pub(crate) struct HonestClients {
    uploaders: JoinSet<()>,
    readers: JoinSet<()>,
    stop_uploaders: CancellationToken,
    stop_readers: CancellationToken,
}

/// Starts the honest clients. Each consists of a task that uploads and a task that asks for predictions.
pub(crate) fn spawn(soak: &Arc<Soak>, rng: &mut fastrand::Rng) -> HonestClients {
    let mut clients = HonestClients {
        uploaders: JoinSet::new(),
        readers: JoinSet::new(),
        stop_uploaders: CancellationToken::new(),
        stop_readers: CancellationToken::new(),
    };
    for _ in 0..CLIENT_COUNT {
        let (sender, receiver) = unbounded_channel();
        let (soak_of_uploader, soak_of_reader) = (soak.clone(), soak.clone());
        let (stop_uploader, stop_reader) = (clients.stop_uploaders.clone(), clients.stop_readers.clone());
        let rng = rng.fork();
        clients.uploaders.spawn(async move {
            stop_uploader.run_until_cancelled(upload_photos(&soak_of_uploader, sender, rng)).await;
        });
        clients.readers.spawn(async move {
            stop_reader.run_until_cancelled(read_predictions(&soak_of_reader, receiver)).await;
        });
    }
    clients
}

impl HonestClients {
    /// Stops the uploads, and waits until every accepted upload has its prediction. Returns false after a
    /// timeout.
    pub(crate) async fn drain(mut self) -> bool {
        self.stop_uploaders.cancel();
        join(&mut self.uploaders).await;
        let is_drained = tokio::time::timeout(DRAIN_TIMEOUT, join(&mut self.readers)).await.is_ok();
        self.stop_readers.cancel();
        join(&mut self.readers).await;
        is_drained
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

/// Uploads one photo after the other, each until it is accepted.
async fn upload_photos(soak: &Soak, accepted: UnboundedSender<Upload>, mut rng: fastrand::Rng) {
    let http = http_client();
    loop {
        let (number, photo, label) = soak.uploads.next_photo();
        let id = loop {
            match post_photo(soak, &http, photo.clone(), number).await {
                Ok(id) => break id,
                // The jitter keeps the clients from retrying all at once.
                Err(pause) => tokio::time::sleep(pause.mul_f64(1.0 + rng.f64() / 2.0)).await,
            }
        };
        let upload = Upload { id, label };
        soak.uploads.accepted.lock().unwrap().push(upload.clone());
        // The reader ends only after this task or at the end of the soak.
        let _ = accepted.send(upload);
    }
}

/// Uploads a photo, as a form or as a raw body. Returns its id, or the pause before the next attempt.
async fn post_photo(
    soak: &Soak,
    http: &reqwest::Client,
    photo: Vec<u8>,
    number: usize,
) -> Result<String, Duration> {
    let request = http.post(soak.program.preprocess().url("/preprocess"));
    let request = if number.is_multiple_of(2) {
        let part = multipart::Part::bytes(photo).file_name("photo.jpg");
        request.multipart(multipart::Form::new().part("file", part))
    } else {
        request.header("content-type", "image/jpeg").body(photo)
    };
    let Ok(response) = request.send().await else {
        soak.uploads.refusals.add(NO_ANSWER);
        return Err(RECONNECT_PAUSE);
    };
    if response.status() != StatusCode::OK {
        return Err(count_refusal(soak, "upload", response).await);
    }
    // The process may be killed after the head of its response. Then the client does not know the id.
    let Ok(body) = response.json::<Value>().await else { return Err(RECONNECT_PAUSE) };
    Ok(body["id"].as_str().expect("an accepted upload has an id").to_owned())
}

/// Asks for the predictions of accepted uploads until the uploader has ended and all predictions are there.
async fn read_predictions(soak: &Soak, mut accepted: UnboundedReceiver<Upload>) {
    let http = http_client();
    let mut pending = VecDeque::new();
    loop {
        let is_ended = loop {
            match accepted.try_recv() {
                Ok(upload) => pending.push_back(upload),
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        let Some(upload) = pending.pop_front() else {
            if is_ended {
                return;
            }
            pending.extend(accepted.recv().await);
            continue;
        };
        match get_prediction(soak, &http, &upload, WAIT_SECONDS).await {
            PredictionAnswer::Right => {
                soak.uploads.predicted_count.fetch_add(1, Ordering::SeqCst);
                // The pictures of a long soak do not fit on its small disk. Only the prediction is needed for
                // the check at the end. The deletion may fail on a read-only disk; then the picture stays.
                let _ = tokio::fs::remove_file(soak.disk.image_path(&upload.id)).await;
            }
            PredictionAnswer::Pending => pending.push_back(upload),
            PredictionAnswer::Refused(pause) => {
                pending.push_back(upload);
                tokio::time::sleep(pause).await;
            }
            // The check at the end counts this upload as lost.
            PredictionAnswer::Wrong(_) | PredictionAnswer::Unknown => {}
        }
    }
}

/// Sends `GET /predictions/{id}?wait=…` and compares the label.
pub(crate) async fn get_prediction(
    soak: &Soak,
    http: &reqwest::Client,
    upload: &Upload,
    wait_seconds: u32,
) -> PredictionAnswer {
    let url = soak.program.preprocess().url(&format!("/predictions/{}?wait={wait_seconds}", upload.id));
    let Ok(response) = http.get(url).send().await else {
        return PredictionAnswer::Refused(RECONNECT_PAUSE);
    };
    match response.status() {
        StatusCode::OK => match response.text().await {
            Ok(text) => match serde_json::from_str::<Value>(&text) {
                Ok(prediction) if prediction["label"] == upload.label.as_str() => PredictionAnswer::Right,
                _ => PredictionAnswer::Wrong(text.chars().take(200).collect()),
            },
            Err(_) => PredictionAnswer::Refused(RECONNECT_PAUSE),
        },
        StatusCode::ACCEPTED => PredictionAnswer::Pending,
        StatusCode::NOT_FOUND => PredictionAnswer::Unknown,
        _ => PredictionAnswer::Refused(count_refusal(soak, "prediction", response).await),
    }
}

/// Counts a refusal, and returns the pause that the response asks for.
async fn count_refusal(soak: &Soak, request: &str, response: Response) -> Duration {
    let status = response.status();
    soak.uploads.refusals.add(format!("{request} {}", status.as_u16()));
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let pause =
        retry_after.and_then(|seconds| seconds.parse().ok()).map_or(DEFAULT_PAUSE, Duration::from_secs);
    let is_transient = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    if !is_transient {
        let body = response.text().await.unwrap_or_default();
        let example = format!("{request}: {status}: {}", body.chars().take(300).collect::<String>());
        soak.violations.add("honest request refused as invalid", example);
    }
    pause
}

pub(crate) fn http_client() -> reqwest::Client {
    reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().unwrap()
}

/// Returns the content of the file `name` in `samples/`.
pub(crate) fn read_sample(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)).unwrap()
}
