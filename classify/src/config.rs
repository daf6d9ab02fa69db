//! What can be tuned, from flags and environment.

use std::{num::NonZeroUsize, time::Duration};

use clap::Args;
use fused::Isa;
use platform::{
    config::{Validate, parse_bytes, parse_seconds},
    cpu::cores,
};

use crate::{backend::Backend, engine::EngineSettings, gpu::GpuSettings, network::CLASSES};

/// What can be tuned. Flags and variables begin with `classify`, because the program that runs both
/// services has those of the other one beside them.
#[derive(Clone, Debug, PartialEq, Args)]
#[group(id = "classify")]
pub struct Settings {
    /// Backend that runs the network; never another than this one [default: a GPU as --classify-gpu
    /// says, else the first one for a CPU]
    #[arg(
        id = "classify_backend",
        long = "classify-backend",
        env = "CLASSIFY_BACKEND",
        value_name = "BACKEND",
        value_enum
    )]
    pub backend: Option<Backend>,
    /// Whether a GPU is used.
    #[command(flatten)]
    pub gpu: GpuSettings,
    /// Engines that run the network side by side; one that runs alone has the threads of all [default:
    /// one a thread; 1 on a GPU]
    #[arg(id = "classify_engines", long = "classify-engines", env = "CLASSIFY_ENGINES", value_name = "N")]
    pub engines: Option<NonZeroUsize>,
    /// Threads that the engines have together [default: one a core]
    #[arg(
        id = "classify_threads",
        long = "classify-threads",
        env = "CLASSIFY_THREADS", value_name = "N",
        default_value_t = cores(),
        hide_default_value = true
    )]
    pub threads: NonZeroUsize,
    /// Widest instructions that `fused` may use: portable, neon, avx2, avx512 [default: the widest
    /// that the CPU has]
    #[arg(id = "classify_isa", long = "classify-isa", env = "CLASSIFY_ISA", value_name = "ISA")]
    pub isa: Option<Isa>,
    /// Images that an engine takes at once if they wait already [default: 32 on a GPU; else 1, because
    /// images of a larger batch take longer each on a CPU, where together they leave the cache]
    #[arg(
        id = "classify_max_batch",
        long = "classify-max-batch",
        env = "CLASSIFY_MAX_BATCH",
        value_name = "N"
    )]
    pub max_batch: Option<NonZeroUsize>,
    /// Images that may wait for decoding, and as many again for an engine; more are refused (429)
    #[arg(
        id = "classify_queue_items",
        long = "classify-queue-items",
        env = "CLASSIFY_QUEUE_ITEMS",
        value_name = "N",
        default_value = "64"
    )]
    pub queue_items: NonZeroUsize,
    /// Pixels of all images that may wait for decoding; more are refused (429)
    #[arg(
        id = "classify_queue_pixels",
        long = "classify-queue-pixels",
        env = "CLASSIFY_QUEUE_PIXELS",
        value_name = "PIXELS",
        default_value_t = 200_000_000
    )]
    pub queue_pixels: u64,
    /// Largest image in bytes, also as 512KiB or 20MiB
    #[arg(
        id = "classify_max_image_bytes",
        long = "classify-max-image-bytes",
        env = "CLASSIFY_MAX_IMAGE_BYTES", value_name = "BYTES",
        default_value = "20MiB",
        value_parser = parse_bytes
    )]
    pub max_image_bytes: usize,
    /// Largest image in pixels
    #[arg(
        id = "classify_max_pixels",
        long = "classify-max-pixels",
        env = "CLASSIFY_MAX_PIXELS",
        value_name = "PIXELS",
        default_value_t = 50_000_000
    )]
    pub max_pixels: u64,
    /// Objects that the bucket announces are classified if their names begin with this, as in
    /// photos/; a message with a gcs_path goes by no prefix [default: all of them]
    #[arg(
        id = "classify_prefix",
        long = "classify-prefix",
        env = "CLASSIFY_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub prefix: String,
    /// Classes in a prediction unless the request says otherwise
    #[arg(
        id = "classify_top_k",
        long = "classify-top-k",
        env = "CLASSIFY_TOP_K",
        value_name = "N",
        default_value = "5"
    )]
    pub top_k: NonZeroUsize,
    /// Seconds in which the network must be ready, or the service ends; the first start on a GPU takes
    /// minutes with autotune
    #[arg(
        id = "classify_warm_up_timeout",
        long = "classify-warm-up-timeout",
        env = "CLASSIFY_WARM_UP_TIMEOUT", value_name = "SECONDS",
        default_value = "1200",
        value_parser = parse_seconds
    )]
    pub warm_up_timeout: Duration,
    /// Seconds after which a request is given up
    #[arg(
        id = "classify_request_timeout",
        long = "classify-request-timeout",
        env = "CLASSIFY_REQUEST_TIMEOUT", value_name = "SECONDS",
        default_value = "30",
        value_parser = parse_seconds
    )]
    pub request_timeout: Duration,
    /// Seconds that requests under way are given to finish at shutdown
    #[arg(
        id = "classify_drain_timeout",
        long = "classify-drain-timeout",
        env = "CLASSIFY_DRAIN_TIMEOUT", value_name = "SECONDS",
        default_value = "8",
        value_parser = parse_seconds
    )]
    pub drain_timeout: Duration,
    /// Largest request body in bytes; Pub/Sub pushes up to 10 MB
    #[arg(
        id = "classify_max_body_bytes",
        long = "classify-max-body-bytes",
        env = "CLASSIFY_MAX_BODY_BYTES", value_name = "BYTES",
        default_value = "20MiB",
        value_parser = parse_bytes
    )]
    pub max_body_bytes: usize,
}

impl Settings {
    /// Engines, their threads, and what they run on.
    pub fn engines(&self, backend: Backend) -> EngineSettings {
        let Self { threads, isa, .. } = *self;
        let engines = self.engines.unwrap_or_else(|| backend.default_engines(threads));
        EngineSettings { backend, engines, threads, isa }
    }

    /// Images that an engine takes at once: as set, or what suits the backend.
    pub fn max_batch(&self, backend: Backend) -> NonZeroUsize {
        self.max_batch.unwrap_or_else(|| backend.default_max_batch())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: None,
            gpu: GpuSettings::default(),
            engines: None,
            threads: cores(),
            isa: None,
            max_batch: None,
            queue_items: const { NonZeroUsize::new(64).unwrap() },
            queue_pixels: 200_000_000,
            max_image_bytes: 20 << 20,
            max_pixels: 50_000_000,
            prefix: String::new(),
            top_k: const { NonZeroUsize::new(5).unwrap() },
            warm_up_timeout: Duration::from_secs(1200),
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
            max_body_bytes: 20 << 20,
        }
    }
}

impl Validate for Settings {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.gpu.problems(self.backend);
        if self.top_k.get() > CLASSES {
            problems.push(format!("--classify-top-k (CLASSIFY_TOP_K): the model knows {CLASSES} classes"));
        }
        if self.warm_up_timeout.is_zero() {
            problems.push(
                "--classify-warm-up-timeout (CLASSIFY_WARM_UP_TIMEOUT): 0 would end every start".to_owned(),
            );
        }
        if self.request_timeout.is_zero() {
            problems.push(
                "--classify-request-timeout (CLASSIFY_REQUEST_TIMEOUT): 0 would give every request up"
                    .to_owned(),
            );
        }
        if self.max_image_bytes == 0 || self.max_pixels == 0 || self.max_body_bytes == 0 {
            problems.push(
                "--classify-max-image-bytes, --classify-max-pixels and --classify-max-body-bytes: 0 would refuse \
                 every image"
                    .to_owned(),
            );
        }
        problems
    }
}
