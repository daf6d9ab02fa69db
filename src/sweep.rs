//! A [`Sweeper`] announces the stored images again that the topic has lost.

use std::{collections::HashSet, error::Error, sync::Arc, time::Duration};

use contract::{
    GcsPath, IMAGE_FILE_NAME, ImageId, MAX_PREDICTION_BYTES, PredictionRecord, RECORD_BASE_NAMES,
};
use platform::{
    bucket::{BucketError, BucketListing, ObjectListing, ObjectName},
    telemetry::error_chain,
    topic::{SqliteTopic, Topic, TopicError},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Number of objects that are listed at a time.
const PAGE_LENGTH: usize = 1_000;
/// Number of images between two pauses.
const IMAGES_PER_PAUSE: usize = 100;
/// Pause that leaves the disk to the requests.
const PAUSE: Duration = Duration::from_millis(5);
/// Pause after an error of the bucket or the topic.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// Finds images that have neither a record nor a message on the topic, and announces them again.
///
/// Such images remain if the file of the topic was lost or damaged, or a message could not be read. An image that is
/// being uploaded or classified during the search may be announced twice, which is harmless.
///
/// A record of any kind and of any model counts. So a new model does not classify the whole bucket again: an image gets
/// a prediction of the new model when it is uploaded again or a client asks for its prediction.
pub(crate) struct Sweeper {
    bucket: Arc<dyn BucketListing>,
    topic: Arc<SqliteTopic>,
    page_length: usize,
}

impl Sweeper {
    pub(crate) fn new(bucket: Arc<dyn BucketListing>, topic: Arc<SqliteTopic>) -> Self {
        Self { bucket, topic, page_length: PAGE_LENGTH }
    }

    /// Searches the whole bucket at once, and again whenever the topic reports a loss, until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut losses = self.topic.losses();
        while !stop.is_cancelled() {
            losses.mark_unchanged();
            let sweep_and_wait = async {
                self.sweep().await;
                losses.changed().await
            };
            if let Some(Err(_)) = stop.run_until_cancelled(sweep_and_wait).await {
                // The file of the topic is closed.
                return;
            }
        }
    }

    /// Searches the whole bucket once. Returns the number of announced images.
    async fn sweep(&self) -> u64 {
        let (mut image_count, mut announced_count) = (0, 0);
        let mut listing = self.start_listing().await;
        loop {
            let page = match listing.next_page(self.page_length).await {
                Ok(page) if page.is_empty() => break,
                Ok(page) => page,
                Err(error) => {
                    pause_after(&error).await;
                    listing = self.start_listing().await;
                    image_count = 0;
                    continue;
                }
            };
            let ids: Vec<ImageId> = page.iter().filter_map(parse_image_name).collect();
            for ids in ids.chunks(IMAGES_PER_PAUSE) {
                image_count += ids.len();
                announced_count += self.announce_lost(ids).await;
                sleep(PAUSE).await;
            }
        }
        if announced_count > 0 {
            tracing::warn!(
                images = image_count,
                announced = announced_count,
                "images without a prediction were announced again"
            );
        } else {
            tracing::info!(images = image_count, "every stored image has a prediction or is announced");
        }
        announced_count
    }

    /// Announces those of the images that have neither a prediction nor a message. Returns their number.
    async fn announce_lost(&self, ids: &[ImageId]) -> u64 {
        // The messages are looked up before the predictions. A message that is acknowledged in between has a
        // prediction.
        let announced = self.find_announced(ids).await;
        let mut count = 0;
        for id in ids.iter().filter(|id| !announced.contains(id.as_str())) {
            if !self.has_record(id).await {
                self.announce(id).await;
                count += 1;
            }
        }
        count
    }

    async fn start_listing(&self) -> Box<dyn ObjectListing> {
        loop {
            match self.bucket.list().await {
                Ok(listing) => return listing,
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Returns the keys of the images that have a message.
    async fn find_announced(&self, ids: &[ImageId]) -> HashSet<String> {
        let keys: Vec<String> = ids.iter().map(ImageId::to_string).collect();
        loop {
            match self.topic.find_keys(keys.clone()).await {
                Ok(announced) => return announced,
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Returns true if the image has an intact record of any kind.
    ///
    /// The first model stores its record under the name without a model, so only these names are read.
    async fn has_record(&self, id: &ImageId) -> bool {
        for base_name in RECORD_BASE_NAMES {
            let name = ObjectName::new(id.record_object_name(base_name, None));
            if let Ok(name) = name
                && self.is_record(id, &name).await
            {
                return true;
            }
        }
        false
    }

    /// Returns true if the object is an intact record: a prediction, an embedding or a failure.
    ///
    /// Also returns true if the object may not be read, because a new one cannot replace it.
    async fn is_record(&self, id: &ImageId, name: &ObjectName) -> bool {
        loop {
            match self.bucket.read(name, MAX_PREDICTION_BYTES).await {
                Ok(object) => return PredictionRecord::is_record(&object.data),
                Err(BucketError::TooLarge { .. }) => return true,
                Err(error) if error.is_permission_denied() => {
                    tracing::warn!(%id, error = error_chain(&error), "a stored prediction may not be read");
                    return true;
                }
                Err(error @ BucketError::Unavailable(_)) => pause_after(&error).await,
                Err(_) => return false,
            }
        }
    }

    /// Announces the image `id`, as soon as the topic accepts the message.
    async fn announce(&self, id: &ImageId) {
        let Ok(path) = GcsPath::new(self.bucket.name(), &id.image_object_name()) else { return };
        loop {
            match self.topic.publish(preprocess::announce_again(path.clone())).await {
                Ok(_) => break,
                Err(TopicError::Full { retry_after }) => sleep(retry_after).await,
                Err(error) => pause_after(&error).await,
            }
        }
        metrics::counter!("topic_reannounced_images_total").increment(1);
    }
}

/// Logs an error of the bucket or the topic, and waits until the call is repeated.
async fn pause_after(error: &(dyn Error + Send + Sync + 'static)) {
    tracing::warn!(error = error_chain(error), "the search for lost images pauses");
    sleep(ERROR_PAUSE).await;
}

/// Returns the id of the image whose object has the name `name`.
fn parse_image_name(name: &ObjectName) -> Option<ImageId> {
    name.as_str().strip_suffix(IMAGE_FILE_NAME)?.strip_suffix('/')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use contract::{EMBEDDING, PREDICTION};
    use platform::{
        bucket::InMemoryBucket,
        topic::{BacklogPolicy, Message},
    };

    use super::*;
    use crate::pipeline::message_key;

    fn id(number: u8) -> ImageId {
        format!("{number:032x}").parse().unwrap()
    }

    async fn waiting_ids(topic: &SqliteTopic) -> Vec<ImageId> {
        let keys = (0..20).map(|number| id(number).to_string()).collect();
        let mut found: Vec<String> = topic.find_keys(keys).await.unwrap().into_iter().collect();
        found.sort_unstable();
        found.iter().map(|key| key.parse().unwrap()).collect()
    }

    /// Returns a sweeper of a bucket in memory and of a topic in `folder`.
    async fn new_sweeper(folder: &tempfile::TempDir) -> (Sweeper, Arc<InMemoryBucket>, Arc<SqliteTopic>) {
        let bucket = Arc::<InMemoryBucket>::default();
        let path = folder.path().join("topic.sqlite");
        let topic = SqliteTopic::open(&path, BacklogPolicy::default(), message_key).await.unwrap();
        // Pages of three objects end at images, between an image and its prediction, and at predictions.
        let sweeper = Sweeper { bucket: bucket.clone(), topic: Arc::clone(&topic), page_length: 3 };
        (sweeper, bucket, topic)
    }

    fn store(bucket: &InMemoryBucket, name: String, content: &str) {
        bucket.replace(&ObjectName::new(name).unwrap(), content.to_owned().into());
    }

    fn announcement(id: &ImageId) -> Message {
        preprocess::announce_again(GcsPath::new("local", &id.image_object_name()).unwrap())
    }

    #[tokio::test]
    async fn images_without_an_intact_prediction_and_without_a_message_are_announced() {
        let folder = tempfile::tempdir().unwrap();
        let (sweeper, bucket, topic) = new_sweeper(&folder).await;
        let failed = r#"{"gcs_path":"gs://local/x","error":{"reason":"not_an_image","message":"…"}}"#;
        let done = r#"{"label":"a","confidence":0.5,"top":[],"model":"m","backend":"b"}"#;
        let embedded = r#"{"embedding":[0.5],"model":"m","backend":"b"}"#;
        // A prediction of a former model counts, too.
        let of_former_model = done.replace("\"m\"", "\"former\"");
        for number in 0..12 {
            store(&bucket, id(number).image_object_name(), "image");
            match number {
                0 => store(&bucket, id(number).record_object_name(PREDICTION, None), done),
                1 => store(&bucket, id(number).record_object_name(EMBEDDING, None), embedded),
                2 => store(&bucket, id(number).record_object_name(PREDICTION, None), &of_former_model),
                3..6 => store(&bucket, id(number).record_object_name(PREDICTION, None), failed),
                6 => store(&bucket, id(number).record_object_name(PREDICTION, None), &done[..20]),
                7 => store(&bucket, id(number).record_object_name(EMBEDDING, None), "\0\0\0\0"),
                8 => drop(topic.publish(announcement(&id(number))).await.unwrap()),
                _ => {}
            }
        }
        for other in ["cat.jpg", "x/image.jpg"] {
            store(&bucket, other.to_owned(), "image");
        }
        let forbidden = ObjectName::new(id(0).record_object_name(PREDICTION, None)).unwrap();
        bucket.write_forbidden(&forbidden, done.into());
        store(&bucket, id(15).record_object_name(PREDICTION, None), done);
        assert_eq!(sweeper.sweep().await, 5);
        assert_eq!(waiting_ids(&topic).await, [6, 7, 8, 9, 10, 11].map(id));
        assert_eq!(sweeper.sweep().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn search_starts_again_after_an_error_of_the_bucket() {
        let folder = tempfile::tempdir().unwrap();
        let (sweeper, bucket, topic) = new_sweeper(&folder).await;
        for number in 0..5 {
            store(&bucket, id(number).image_object_name(), "image");
        }
        let sweep = tokio::spawn(async move { sweeper.sweep().await });
        // The first page has been announced. The next call of the bucket is that of the second page.
        while waiting_ids(&topic).await.len() < 3 {
            tokio::task::yield_now().await;
        }
        bucket.fail_next(2);
        assert_eq!(sweep.await.unwrap(), 5);
        assert_eq!(waiting_ids(&topic).await, [0, 1, 2, 3, 4].map(id));
    }

    #[tokio::test]
    async fn bucket_is_searched_again_after_a_loss() {
        let folder = tempfile::tempdir().unwrap();
        let (sweeper, bucket, topic) = new_sweeper(&folder).await;
        store(&bucket, id(1).image_object_name(), "image");
        let stop = CancellationToken::new();
        let running = tokio::spawn(sweeper.run(stop.clone()));
        let wait_for_announcement = async || {
            while waiting_ids(&topic).await != [id(1)] {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, wait_for_announcement()).await.unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("topic.sqlite{suffix}")));
        }
        assert_eq!(waiting_ids(&topic).await, []);
        tokio::time::timeout(limit, wait_for_announcement()).await.unwrap();
        stop.cancel();
        running.await.unwrap();
    }
}
