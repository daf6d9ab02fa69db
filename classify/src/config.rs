//! Settings of the service, from flags and environment variables.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use clap::Args;
use fused::Isa;
use platform::{
    config::{Validate, parse_bytes, parse_defaults, parse_seconds},
    cpu::cores,
    http::{BodyLimits, BodyReceiver},
};

use crate::{
    backend::Backend,
    engine::EnginePlan,
    gpu::GpuSettings,
    model::{HEAD, Head, spec},
    pixels::ImageLimits,
    queue_permits::QueueLimits,
};

/// Minimum number of bytes by which the memory limit must exceed the longest file.
///
/// This leaves enough memory to decode one usual photo at a time.
const MIN_DECODING_BYTES: usize = 64 << 20;

/// The shares into which the memory limit is divided, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryShares {
    /// Memory for request bodies and for files that are read from the bucket.
    pub(crate) file_bytes: u64,
    /// Maximum memory for one file.
    pub(crate) max_file_bytes: u64,
    /// Memory for decoding.
    pub(crate) decoding_bytes: u64,
    /// Maximum memory for decoding one image.
    pub(crate) max_image_bytes: u64,
}

/// Settings of the service.
///
/// The names of flags and variables begin with `classify`, because the program `image-pipeline` also has the
/// settings of preprocess.
#[derive(Clone, Debug, PartialEq, Args)]
#[group(id = "classify")]
pub struct Settings {
    /// Backend that runs the network. The service does not start if this backend cannot be used [default: a
    /// GPU backend if --classify-gpu allows it, else the first CPU backend]
    #[arg(id = "classify-backend", long, env = "CLASSIFY_BACKEND", value_name = "BACKEND", value_enum)]
    pub backend: Option<Backend>,
    /// Settings of the GPU.
    #[command(flatten)]
    pub gpu: GpuSettings,
    /// Number of engines that run in parallel. When only one is busy it uses all threads [default: one
    /// per thread; 1 on a GPU]
    #[arg(id = "classify-engines", long, env = "CLASSIFY_ENGINES", value_name = "N")]
    pub engine_count: Option<NonZeroUsize>,
    /// Number of threads that the engines share [default: one per core]
    #[arg(id = "classify-threads", long, env = "CLASSIFY_THREADS", value_name = "N")]
    #[arg(default_value_t = cores(), hide_default_value = true)]
    pub thread_count: NonZeroUsize,
    /// Widest instruction set that the backend `fused` may use: portable, neon, avx2 or avx512 [default:
    /// the widest of this CPU]
    #[arg(id = "classify-isa", long, env = "CLASSIFY_ISA", value_name = "ISA")]
    pub isa: Option<Isa>,
    /// Maximum number of waiting images that an engine runs as one batch [default: 32 on a GPU; 1 on a
    /// CPU, where a larger batch exceeds the cache and takes longer per image]
    #[arg(id = "classify-max-batch", long, env = "CLASSIFY_MAX_BATCH", value_name = "N")]
    pub max_batch: Option<NonZeroUsize>,
    /// Maximum number of images that are decoded, or wait for decoding or for an engine; further images are
    /// refused (429)
    #[arg(id = "classify-queue-items", long, env = "CLASSIFY_QUEUE_ITEMS", value_name = "N")]
    #[arg(default_value = "64")]
    pub queue_items: NonZeroUsize,
    /// Maximum total number of pixels of the images that are decoded or wait for decoding; further images are
    /// refused (429)
    #[arg(id = "classify-queue-pixels", long, env = "CLASSIFY_QUEUE_PIXELS", value_name = "PIXELS")]
    #[arg(default_value_t = 200_000_000)]
    pub queue_pixels: u64,
    /// Percentage of the two limits above that requests leave free for events, and events for requests
    #[arg(id = "classify-queue-reserve", long, env = "CLASSIFY_QUEUE_RESERVE", value_name = "PERCENT")]
    #[arg(default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub queue_reserve: u8,
    /// Maximum size of an image in bytes, or with a unit, as in 512KiB or 32MiB
    #[arg(id = "classify-max-image-bytes", long, env = "CLASSIFY_MAX_IMAGE_BYTES", value_name = "BYTES")]
    #[arg(default_value = "32MiB", value_parser = parse_bytes)]
    pub max_image_bytes: usize,
    /// Maximum number of pixels of an image
    #[arg(id = "classify-max-pixels", long, env = "CLASSIFY_MAX_PIXELS", value_name = "PIXELS")]
    #[arg(default_value_t = 64_000_000)]
    pub max_pixels: u64,
    /// Maximum number of scans of a JPEG; progressive JPEGs usually have about ten
    #[arg(id = "classify-max-scans", long, env = "CLASSIFY_MAX_SCANS", value_name = "N")]
    #[arg(default_value = "32")]
    pub max_scans: NonZeroU32,
    /// Maximum memory in bytes for request bodies, files from the bucket and decoding together
    #[arg(id = "classify-max-memory", long, env = "CLASSIFY_MAX_MEMORY", value_name = "BYTES")]
    #[arg(default_value = "320MiB", value_parser = parse_bytes)]
    pub max_memory: usize,
    /// Maximum memory in bytes for decoding one image; images that need more are refused (422)
    #[arg(id = "classify-max-image-memory", long, env = "CLASSIFY_MAX_IMAGE_MEMORY", value_name = "BYTES")]
    #[arg(default_value = "256MiB", value_parser = parse_bytes)]
    pub max_image_memory: usize,
    /// Maximum seconds that a request or an image waits for memory before it is refused (429)
    #[arg(id = "classify-queue-timeout", long, env = "CLASSIFY_QUEUE_TIMEOUT", value_name = "SECONDS")]
    #[arg(default_value = "10", value_parser = parse_seconds)]
    pub queue_timeout: Duration,
    /// Maximum seconds for a request body to arrive before the request is refused (408)
    #[arg(id = "classify-upload-timeout", long, env = "CLASSIFY_UPLOAD_TIMEOUT", value_name = "SECONDS")]
    #[arg(default_value = "20", value_parser = parse_seconds)]
    pub upload_timeout: Duration,
    /// Minimum bytes per second at which a request body must arrive, after --classify-upload-grace; slower ones
    /// are refused (408)
    #[arg(id = "classify-min-upload-rate", long, env = "CLASSIFY_MIN_UPLOAD_RATE", value_name = "BYTES")]
    #[arg(default_value = "1KiB", value_parser = parse_bytes)]
    pub min_upload_rate: usize,
    /// Maximum seconds by which a request body may fall behind --classify-min-upload-rate, and so the longest
    /// pause of an upload
    #[arg(id = "classify-upload-grace", long, env = "CLASSIFY_UPLOAD_GRACE", value_name = "SECONDS")]
    #[arg(default_value = "10", value_parser = parse_seconds)]
    pub upload_grace: Duration,
    /// Prefix of object names, such as photos/. Bucket notifications for other objects are ignored; a message
    /// with a gcs_path is not filtered [default: none, all objects are classified]
    #[arg(id = "classify-prefix", long, env = "CLASSIFY_PREFIX", value_name = "PREFIX")]
    #[arg(default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Number of classes in a prediction unless the request sets top_k
    #[arg(id = "classify-top-k", long, env = "CLASSIFY_TOP_K", value_name = "N")]
    #[arg(default_value_t = default_top_k(&HEAD))]
    pub top_k: NonZeroUsize,
    /// Seconds after which the service ends, or uses the CPU instead of the GPU, if the network is not ready.
    /// The first start on a GPU takes minutes with autotune
    #[arg(id = "classify-warm-up-timeout", long, env = "CLASSIFY_WARM_UP_TIMEOUT", value_name = "SECONDS")]
    #[arg(default_value = "1200", value_parser = parse_seconds)]
    pub warm_up_timeout: Duration,
    /// Seconds after which a request is answered with 504
    #[arg(id = "classify-request-timeout", long, env = "CLASSIFY_REQUEST_TIMEOUT", value_name = "SECONDS")]
    #[arg(default_value = "30", value_parser = parse_seconds)]
    pub request_timeout: Duration,
    /// Seconds that running requests get to finish at shutdown
    #[arg(id = "classify-drain-timeout", long, env = "CLASSIFY_DRAIN_TIMEOUT", value_name = "SECONDS")]
    #[arg(default_value = "8", value_parser = parse_seconds)]
    pub drain_timeout: Duration,
    /// Maximum size of a request body in bytes, except that of an event
    #[arg(id = "classify-max-body-bytes", long, env = "CLASSIFY_MAX_BODY_BYTES", value_name = "BYTES")]
    #[arg(default_value = "32MiB", value_parser = parse_bytes)]
    pub max_body_bytes: usize,
    /// Maximum size of an event in bytes, as it is pushed or pulled. A larger event cannot be an announcement
    /// and is acknowledged unread
    #[arg(id = "classify-max-event-bytes", long, env = "CLASSIFY_MAX_EVENT_BYTES", value_name = "BYTES")]
    #[arg(default_value = "256KiB", value_parser = parse_bytes)]
    pub max_event_bytes: usize,
    /// Maximum size of the JSON of a request in bytes
    #[arg(id = "classify-max-json-bytes", long, env = "CLASSIFY_MAX_JSON_BYTES", value_name = "BYTES")]
    #[arg(default_value = "64KiB", value_parser = parse_bytes)]
    pub max_json_bytes: usize,
}

/// Limits a batch size to the maximum of a network. `None` stands for a network that accepts any batch size.
fn limit_batch(max_batch: NonZeroUsize, network_max: Option<usize>) -> NonZeroUsize {
    network_max.and_then(NonZeroUsize::new).map_or(max_batch, |network_max| max_batch.min(network_max))
}

impl Settings {
    /// Returns the limits of the queues.
    pub(crate) fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            max_images: self.queue_items,
            max_pixels: self.queue_pixels,
            reserved_percent: self.queue_reserve,
        }
    }

    /// Returns the limits on an image.
    pub fn image_limits(&self) -> ImageLimits {
        ImageLimits { max_pixels: self.max_pixels, max_scans: self.max_scans.get() }
    }

    /// Returns the number of engines on `backend`, their threads and their instruction set.
    ///
    /// The number of engines is the backend's default if the settings do not contain a number.
    pub fn engine_plan(&self, backend: Backend) -> EnginePlan {
        let Self { thread_count, isa, .. } = *self;
        let engine_count = self.engine_count.unwrap_or_else(|| backend.default_engine_count(thread_count));
        EnginePlan { backend, engine_count, thread_count, isa }
    }

    /// Returns the maximum number of images in a batch on `backend`.
    ///
    /// The maximum is the backend's default if the settings do not contain a maximum. It is at most
    /// [`spec::MAX_BATCH`], because some networks accept only one image at a time.
    pub fn max_batch_on(&self, backend: Backend) -> NonZeroUsize {
        let max_batch = self.max_batch.unwrap_or_else(|| backend.default_max_batch());
        limit_batch(max_batch, spec::MAX_BATCH)
    }

    /// Divides the memory limit into fixed shares.
    ///
    /// Files get an eighth of the memory, or more if the longest one needs more. Decoding gets the rest.
    ///
    /// Files and decoding have separate shares, because a request holds memory of the first share while it
    /// waits for memory of the second. With a common share, requests could wait for each other forever.
    pub(crate) fn memory_shares(&self) -> MemoryShares {
        let max_file_bytes = BodyReceiver::max_reserved_bytes(self.max_body_bytes.max(self.max_image_bytes));
        let file_bytes = (self.max_memory / 8).max(max_file_bytes);
        let decoding_bytes = self.max_memory.saturating_sub(file_bytes) as u64;
        MemoryShares {
            file_bytes: file_bytes as u64,
            max_file_bytes: max_file_bytes as u64,
            decoding_bytes,
            max_image_bytes: decoding_bytes.min(self.max_image_memory as u64),
        }
    }

    pub(crate) fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            max_bytes: self.max_body_bytes,
            timeout: self.upload_timeout,
            min_rate: self.min_upload_rate,
            grace: self.upload_grace,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        parse_defaults()
    }
}

/// Returns the default of [`Settings::top_k`], which is 1 for a model of embeddings.
fn default_top_k(head: &Head) -> NonZeroUsize {
    NonZeroUsize::new(head.default_top_k()).unwrap_or(NonZeroUsize::MIN)
}

/// Returns a problem if a prediction cannot have `top_k` classes. The setting does not apply to embeddings.
fn check_top_k(top_k: NonZeroUsize, head: &Head) -> Option<String> {
    let class_count = head.class_count();
    (top_k.get() > class_count && !head.is_embedding())
        .then(|| format!("--classify-top-k (CLASSIFY_TOP_K): the model has only {class_count} classes"))
}

impl Validate for Settings {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.gpu.problems(self.backend);
        problems.extend(check_top_k(self.top_k, &HEAD));
        if self.warm_up_timeout.is_zero() {
            problems.push(
                "--classify-warm-up-timeout (CLASSIFY_WARM_UP_TIMEOUT): with 0 the service would never start"
                    .to_owned(),
            );
        }
        if self.request_timeout.is_zero() {
            problems.push(
                "--classify-request-timeout (CLASSIFY_REQUEST_TIMEOUT): with 0 every request would time out"
                    .to_owned(),
            );
        }
        if self.upload_grace.is_zero() && self.min_upload_rate > 0 {
            problems.push(
                "--classify-upload-grace (CLASSIFY_UPLOAD_GRACE): with 0 every body would be cut off"
                    .to_owned(),
            );
        }
        let image_bytes = self.memory_shares().max_image_bytes;
        let max_scans = image_bytes / 2 / jpeg_scaled::MAX_TABLE_BYTES_PER_SCAN;
        let longest_file = self.max_body_bytes.max(self.max_image_bytes);
        if self.max_memory < longest_file.saturating_add(MIN_DECODING_BYTES) {
            problems.push(format!(
                "--classify-max-memory ({} bytes) must be at least {MIN_DECODING_BYTES} bytes more than \
                 --classify-max-body-bytes and --classify-max-image-bytes ({longest_file} bytes)",
                self.max_memory,
            ));
        } else if u64::from(self.max_scans.get()) > max_scans {
            problems.push(format!(
                "--classify-max-scans (CLASSIFY_MAX_SCANS): {} is more than {max_scans}. The tables of so many \
                 scans would take more than half of the {image_bytes} bytes for decoding an image, and large \
                 progressive JPEGs would be refused. Allow fewer scans, or raise --classify-max-image-memory and \
                 --classify-max-memory",
                self.max_scans,
            ));
        }
        if self.max_image_bytes == 0 || self.max_pixels == 0 || self.max_body_bytes == 0 {
            problems.push(
                "--classify-max-image-bytes, --classify-max-pixels and --classify-max-body-bytes: with 0 every \
                 image would be refused"
                    .to_owned(),
            );
        }
        if self.max_event_bytes == 0 || self.max_json_bytes == 0 {
            problems.push(
                "--classify-max-event-bytes and --classify-max-json-bytes: with 0 every event and every path \
                 would be refused"
                    .to_owned(),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{GEOMETRY, OutputKind},
        pixels::ImageHeader,
    };

    #[test]
    fn default_top_k_is_clamped_to_the_classes_and_a_larger_explicit_one_is_refused() {
        let head = |kind, class_count| Head::for_tests(kind, &[("", "a"); 200][..class_count]);
        for (kind, class_count, expected) in [
            (OutputKind::Logits, 1, 1),
            (OutputKind::Logits, 4, 4),
            (OutputKind::Logits, 5, 5),
            (OutputKind::Logits, 200, 5),
            (OutputKind::Binary, 2, 2),
            (OutputKind::Multilabel, 80, 80),
            (OutputKind::Multilabel, 200, 100),
            (OutputKind::Embedding, 0, 1),
        ] {
            let head = head(kind, class_count);
            let top_k = default_top_k(&head);
            assert_eq!((top_k.get(), check_top_k(top_k, &head)), (expected, None), "{kind:?} {class_count}");
        }
        let five = const { NonZeroUsize::new(5).unwrap() };
        let problem = check_top_k(five, &head(OutputKind::Logits, 4)).unwrap();
        assert!(problem.contains("CLASSIFY_TOP_K") && problem.contains("only 4 classes"), "{problem}");
    }

    #[test]
    fn memory_shares_add_up_to_the_limit() {
        for memory_mebibytes in [96, 128, 320, 1024] {
            let settings = Settings { max_memory: memory_mebibytes << 20, ..Settings::default() };
            let shares = settings.memory_shares();
            assert_eq!(shares.file_bytes + shares.decoding_bytes, settings.max_memory as u64, "{shares:?}");
            assert!(shares.max_file_bytes <= shares.file_bytes, "{shares:?}");
            assert!(shares.max_image_bytes <= shares.decoding_bytes, "{shares:?}");
        }
    }

    #[test]
    fn batch_size_is_limited_to_the_maximum_of_the_network() {
        let size = |size| NonZeroUsize::new(size).unwrap();
        assert_eq!(limit_batch(size(8), Some(1)), size(1));
        assert_eq!(limit_batch(size(1), Some(4)), size(1));
        assert_eq!(limit_batch(size(8), None), size(8));
    }

    #[test]
    fn scans_whose_tables_leave_no_memory_for_pixels_are_refused_at_start() {
        let problems = |max_scans: u32, max_image_memory| {
            let max_scans = max_scans.try_into().unwrap();
            Settings { max_scans, max_image_memory, ..Settings::default() }.problems()
        };
        assert_eq!(problems(2621, 256 << 20), [""; 0]);
        for (max_scans, memory) in
            [(2622, 256 << 20), (6000, 256 << 20), (400, 32 << 20), (u32::MAX, 1 << 30)]
        {
            let problems = problems(max_scans, memory);
            assert!(
                problems.len() == 1 && problems[0].contains(&format!("{max_scans} is more than")),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn default_memory_is_enough_for_a_png_with_the_maximum_number_of_pixels() {
        let settings = Settings::default();
        // 8000 x 8000 pixels of RGBA with 16 bits per channel.
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        file.extend([0, 0, 0x1F, 0x40, 0, 0, 0x1F, 0x40, 16, 6, 0, 0, 0]);
        let header = ImageHeader::read(&file, &settings.image_limits()).unwrap();
        let bytes = header.max_crop_bytes(GEOMETRY);
        assert!(bytes <= settings.memory_shares().max_image_bytes, "{bytes} bytes");
        assert!(settings.memory_shares().max_image_bytes < settings.memory_shares().decoding_bytes);
    }
}
