//! One upload's way: header → CPU door → memory → picture → bucket → topic.
//!
//! Every step may be done again. An upload that died between two of them (the caller left, the
//! process was killed, the topic did not answer) is completed by sending it again: the object is
//! there already, and it is announced unless there is a prediction of it. So nothing has to be
//! undone, and a caller who leaves may stop this anywhere.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contract::{GcsPath, ImageEvent, ImageId};
use metrics::{counter, histogram};
use platform::{
    bucket::{BucketError, Created, ObjectName, SharedBucket},
    cpu::{CpuError, CpuPool},
    http::Problem,
    memory_budget::{MemoryBudget, MemoryBudgetError, MemoryReservation},
    topic::{Message, SharedTopic, TRACEPARENT},
};
use serde::Serialize;

use crate::{
    error,
    image::{self, ImageError, Outcome, Plan, Processed, Recipe, Timings},
    trace_context::TraceParent,
};

/// Content type of what is stored.
const JPEG: &str = "image/jpeg";

/// An upload as it came.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    /// The memory it takes, together with the other files of its request.
    pub(crate) room: Arc<MemoryReservation>,
}

/// What is told about a stored image.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stored {
    gcs_path: GcsPath,
    id: ImageId,
    width: u32,
    height: u32,
    /// The same upload was stored before.
    duplicate: bool,
}

/// Takes uploads in.
pub(crate) struct Ingest {
    recipe: Arc<Recipe>,
    recipe_text: Arc<str>,
    cpu: CpuPool,
    memory: MemoryBudget,
    bucket: SharedBucket,
    topic: Option<SharedTopic>,
}

impl Ingest {
    pub(crate) fn new(
        recipe: Recipe,
        cpu: CpuPool,
        memory: MemoryBudget,
        bucket: SharedBucket,
        topic: Option<SharedTopic>,
    ) -> Self {
        let recipe_text = recipe.id_text().into();
        Self { recipe: Arc::new(recipe), recipe_text, cpu, memory, bucket, topic }
    }

    /// The recipe as text.
    pub(crate) fn recipe_text(&self) -> &str {
        &self.recipe_text
    }

    /// Refuses an upload for which there is no place now, before it is read. One that is let in may still
    /// find none when it has been read.
    pub(crate) fn has_place(&self) -> Result<(), Problem> {
        if self.cpu.is_full() { Err(door_problem(CpuError::Overloaded)) } else { Ok(()) }
    }

    /// Brings one upload all the way and counts how it went.
    pub(crate) async fn take(&self, upload: Upload, trace: &TraceParent) -> Result<Stored, Problem> {
        let outcome = self.make_and_store(upload, trace).await;
        let label = match &outcome {
            Ok(Stored { duplicate: false, .. }) => "stored",
            Ok(Stored { duplicate: true, .. }) => "duplicate",
            Err(problem) => problem.kind,
        };
        counter!("preprocess_images_total", "outcome" => label).increment(1);
        outcome
    }

    async fn make_and_store(&self, upload: Upload, trace: &TraceParent) -> Result<Stored, Problem> {
        if upload.bytes.is_empty() {
            return Err(error::empty_body());
        }
        let size_in = upload.bytes.len();
        let plan = self.plan(&upload).await?;
        let header = *plan.header();
        let (id, picture) = self.make(upload, plan).await?;
        record_timings(&picture.timings);

        let size_out = picture.jpeg.len();
        let Processed { width, height, .. } = picture;
        let (gcs_path, duplicate) = self.store(&id, picture.jpeg).await?;
        let stored = Stored { gcs_path, id, width, height, duplicate };
        if !duplicate || !self.has_prediction(&stored.id).await? {
            self.announce(&stored, trace).await?;
        }
        tracing::info!(
            id = %stored.id,
            format = header.format().name(),
            bytes_in = size_in,
            width_in = header.width,
            height_in = header.height,
            bytes_out = size_out,
            width,
            height,
            duplicate,
            "image stored"
        );
        Ok(stored)
    }

    /// What the header says of the way to the picture. Large ones are read elsewhere: bytes that were made
    /// for it can keep a thread busy for some hundredths of a second.
    async fn plan(&self, upload: &Upload) -> Result<Plan, Problem> {
        const SMALL: usize = 64 << 10;
        if upload.bytes.len() <= SMALL {
            return Ok(Plan::of(&upload.bytes, &self.recipe)?);
        }
        let (upload, recipe) = (upload.clone(), Arc::clone(&self.recipe));
        let plan = tokio::task::spawn_blocking(move || Plan::of(&upload.bytes, &recipe));
        Ok(plan.await.map_err(Problem::internal)??)
    }

    /// Id and picture. Where a decoder refuses the file, the next one gets a place and memory of its
    /// own: those of the first are given back before, so that nobody waits for more while holding some.
    async fn make(&self, upload: Upload, mut plan: Plan) -> Result<(ImageId, Processed), Problem> {
        loop {
            match self.follow(upload.clone(), plan).await? {
                (id, Outcome::Done(picture)) => return Ok((id, *picture)),
                (_, Outcome::Next(next)) => plan = *next,
            }
        }
    }

    /// What comes of one plan, behind the CPU door; so is the id: hashing a large upload takes its
    /// time, too.
    async fn follow(&self, upload: Upload, plan: Plan) -> Result<(ImageId, Outcome), Problem> {
        let cost = plan.cost();
        let place = self.cpu.try_acquire(cost.pixels).map_err(door_problem)?;
        let memory = self.memory.reserve(cost.bytes).await.map_err(memory_problem)?;
        let (recipe, recipe_text) = (Arc::clone(&self.recipe), Arc::clone(&self.recipe_text));
        let job = move || {
            // Both are given back when the job ends, also where nobody waits for it any more.
            let (_memory, Upload { bytes, room: _room }) = (memory, upload);
            let outcome = image::follow(&plan, &bytes, &recipe)?;
            Ok::<_, ImageError>((ImageId::from_upload(&recipe_text, &bytes), outcome))
        };
        Ok(self.cpu.run_with_permit(place, job).await.map_err(door_problem)??)
    }

    async fn store(&self, id: &ImageId, jpeg: Bytes) -> Result<(GcsPath, bool), Problem> {
        let started = Instant::now();
        let object = image_object(id)?;
        let gcs_path = GcsPath::new(self.bucket.name(), object.as_str()).map_err(Problem::internal)?;
        let created = self.bucket.create(&object, jpeg, JPEG).await.map_err(error::bucket_problem)?;
        record("store", started.elapsed());
        Ok((gcs_path, created == Created::AlreadyThere))
    }

    async fn announce(&self, stored: &Stored, trace: &TraceParent) -> Result<(), Problem> {
        let Some(topic) = &self.topic else {
            return Ok(());
        };
        let started = Instant::now();
        let event = ImageEvent {
            gcs_path: stored.gcs_path.clone(),
            id: Some(stored.id.clone()),
            width: Some(stored.width),
            height: Some(stored.height),
        };
        let message = Message {
            data: serde_json::to_vec(&event).map_err(Problem::internal)?.into(),
            attributes: [
                ("content-type".to_owned(), JPEG.to_owned()),
                (TRACEPARENT.to_owned(), trace.next_step()),
            ]
            .into(),
        };
        topic.publish(message).await.map_err(error::topic_problem)?;
        record("publish", started.elapsed());
        Ok(())
    }

    /// Whether there is an image of this id.
    pub(crate) async fn has_image(&self, id: &ImageId) -> Result<bool, Problem> {
        self.bucket.exists(&image_object(id)?).await.map_err(error::bucket_problem)
    }

    async fn has_prediction(&self, id: &ImageId) -> Result<bool, Problem> {
        self.bucket.exists(&prediction_object(id)?).await.map_err(error::bucket_problem)
    }

    /// The prediction of an image, as it is in the bucket; nothing where there is none yet.
    pub(crate) async fn prediction(&self, id: &ImageId) -> Result<Option<Bytes>, Problem> {
        /// Far more than any prediction has.
        const LIMIT: usize = 1 << 20;
        match self.bucket.read(&prediction_object(id)?, LIMIT).await {
            Ok(prediction) => Ok(Some(prediction.data)),
            Err(BucketError::NotFound(_)) => Ok(None),
            Err(error) => Err(error::bucket_problem(error)),
        }
    }
}

fn door_problem(error: CpuError) -> Problem {
    if error == CpuError::Overloaded {
        counter!("preprocess_shed_total", "reason" => "overloaded").increment(1);
    }
    error::cpu_problem(error)
}

fn memory_problem(error: MemoryBudgetError) -> Problem {
    counter!("preprocess_shed_total", "reason" => "memory").increment(1);
    error::memory_problem(error)
}

fn image_object(id: &ImageId) -> Result<ObjectName, Problem> {
    ObjectName::new(id.image_object()).map_err(Problem::internal)
}

fn prediction_object(id: &ImageId) -> Result<ObjectName, Problem> {
    ObjectName::new(id.prediction_object()).map_err(Problem::internal)
}

fn record_timings(timings: &Timings) {
    record("decode", timings.decode);
    record("resize", timings.resize);
    record("encode", timings.encode);
}

fn record(stage: &'static str, duration: Duration) {
    histogram!("preprocess_stage_duration_seconds", "stage" => stage).record(duration.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, sync::mpsc};

    use axum::http::{HeaderMap, StatusCode};
    use platform::{bucket::InMemoryBucket, cpu::CpuLimits, memory_budget::MemoryBudgetLimits};
    use tokio::{sync::oneshot, task::JoinHandle};

    use super::*;
    use crate::Settings;

    const MEMORY_BYTES: u64 = 64 << 20;

    fn ingest(bucket: &Arc<InMemoryBucket>, max_jobs: usize, max_weight: u64) -> Arc<Ingest> {
        let limits = CpuLimits { threads: NonZeroUsize::MIN, max_jobs, max_weight };
        let cpu = CpuPool::new("test", limits).unwrap();
        Arc::new(Ingest::new(Settings::default().recipe(), cpu, memory(MEMORY_BYTES), bucket.clone(), None))
    }

    fn memory(bytes: u64) -> MemoryBudget {
        let limits = MemoryBudgetLimits { bytes, max_waiting: 1, wait_timeout: Duration::from_secs(3600) };
        MemoryBudget::new("test", "tests", &limits)
    }

    async fn upload(bytes: impl Into<Bytes>) -> Upload {
        let room = memory(MEMORY_BYTES).reserve(1).await.unwrap();
        Upload { bytes: bytes.into(), room: Arc::new(room) }
    }

    fn png(side: u32) -> Bytes {
        let mut file = std::io::Cursor::new(Vec::new());
        ::image::RgbImage::new(side, side).write_to(&mut file, ::image::ImageFormat::Png).unwrap();
        file.into_inner().into()
    }

    /// Holds the only thread until the gate is opened.
    async fn occupy(ingest: &Arc<Ingest>, weight: u64) -> (mpsc::Sender<()>, JoinHandle<()>) {
        let (open, gate) = mpsc::channel();
        let (started, has_started) = oneshot::channel();
        let ingest = Arc::clone(ingest);
        let job = tokio::spawn(async move {
            let wait = move || {
                started.send(()).unwrap();
                gate.recv().unwrap();
            };
            ingest.cpu.run(weight, wait).await.unwrap();
        });
        has_started.await.unwrap();
        (open, job)
    }

    fn trace() -> TraceParent {
        TraceParent::of(&HeaderMap::new())
    }

    #[tokio::test]
    async fn too_many_pictures_or_pixels_are_shed_and_let_in_again() {
        // Full by the number of pictures, then by their pixels.
        for (max_jobs, max_weight, held) in [(1, 1_000_000, 1), (10, 100, 60)] {
            let ingest = ingest(&Arc::default(), max_jobs, max_weight);
            let (open, held) = occupy(&ingest, held).await;
            let problem = ingest.take(upload(png(8)).await, &trace()).await.unwrap_err();
            assert_eq!((problem.status, problem.kind), (StatusCode::TOO_MANY_REQUESTS, "overloaded"));
            assert_eq!(problem.retry_after, Some(error::SOON));
            // How many pixels there are is known once an upload has been read.
            assert_eq!(ingest.has_place().is_err(), max_jobs == 1);
            open.send(()).unwrap();
            held.await.unwrap();
            assert!(ingest.has_place().is_ok());
            assert!(!ingest.take(upload(png(8)).await, &trace()).await.unwrap().duplicate);
        }
    }

    #[tokio::test]
    async fn what_is_refused_by_its_header_needs_no_thread() {
        let ingest = ingest(&Arc::default(), 1, 1);
        let (open, held) = occupy(&ingest, 1).await;
        let problem = ingest.take(upload(&b"hello"[..]).await, &trace()).await.unwrap_err();
        assert_eq!(problem.kind, "not_an_image");
        open.send(()).unwrap();
        held.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_stored_for_a_caller_who_left() {
        let bucket = Arc::new(InMemoryBucket::default());
        let ingest = ingest(&bucket, 10, 1_000_000);
        let (open, held) = occupy(&ingest, 1).await;
        let upload = upload(png(8)).await;
        let left = tokio::time::timeout(Duration::ZERO, ingest.take(upload.clone(), &trace())).await;
        assert!(left.is_err(), "the only thread is taken");
        open.send(()).unwrap();
        held.await.unwrap();
        // The thread takes jobs in turn: when this one is through, the one that was left is, too.
        ingest.cpu.run(1, || ()).await.unwrap();
        let id = ImageId::from_upload(ingest.recipe_text(), &upload.bytes);
        assert!(!ingest.has_image(&id).await.unwrap());
    }

    #[tokio::test]
    async fn a_picture_waits_for_memory_and_gives_it_back() {
        let ingest = ingest(&Arc::default(), 10, 1_000_000);
        let most = ingest.memory.reserve(MEMORY_BYTES - 1024).await.unwrap();
        let upload = upload(png(8)).await;
        let trace = trace();
        let mut taking = std::pin::pin!(ingest.take(upload, &trace));
        assert!(tokio::time::timeout(Duration::ZERO, &mut taking).await.is_err(), "it waits");
        // One may wait.
        let refused = ingest.memory.reserve(2048).await.unwrap_err();
        assert_eq!(refused, MemoryBudgetError::Overloaded);
        let problem = memory_problem(refused);
        assert_eq!((problem.status, problem.kind), (StatusCode::TOO_MANY_REQUESTS, "overloaded"));
        assert_eq!(problem.retry_after, Some(error::SOON));
        drop(most);
        assert!(!taking.await.unwrap().duplicate);
        assert_eq!(ingest.memory.reserved_bytes(), 0);
    }
}
