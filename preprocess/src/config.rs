//! What can be tuned, from flags and environment.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use clap::Args;
use platform::{
    config::{Validate, parse_bytes, parse_seconds},
    cpu::cores,
    http::HttpLimits,
};

use crate::image::{Limits, Recipe};

/// Least memory in bytes beside the largest upload: enough for the usual photos, one at a time.
const LEAST_FOR_PICTURES: usize = 64 << 20;

/// Most memory in bytes that a thread keeps from one picture to the next: the buffers of a photo that
/// is scaled down while it is decoded.
const MOST_KEPT: usize = 8 << 20;

/// The parts of the memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// For uploads as they came.
    pub(crate) uploads: u64,
    /// For what is made of them.
    pub(crate) pictures: u64,
    /// Kept by each thread, whether it works or not.
    pub(crate) kept_by_a_thread: usize,
}

/// What can be tuned. Flags and variables begin with `preprocess`, because the program that runs
/// both services has those of the other one beside them.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(id = "preprocess")]
pub struct Settings {
    /// Shorter side of the stored picture in pixels; smaller pictures stay as they are
    #[arg(
        id = "preprocess_shorter_side",
        long = "preprocess-shorter-side",
        env = "PREPROCESS_SHORTER_SIDE",
        value_name = "PIXELS",
        default_value = "256"
    )]
    pub shorter_side: NonZeroU32,
    /// JPEG quality of the stored picture, 1 to 100
    #[arg(
        id = "preprocess_jpeg_quality",
        long = "preprocess-jpeg-quality",
        env = "PREPROCESS_JPEG_QUALITY",
        value_name = "QUALITY",
        default_value_t = 95,
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    pub jpeg_quality: u8,
    /// Largest request body in bytes, also as 512KiB or 20MiB; larger is refused (413)
    #[arg(
        id = "preprocess_max_body_bytes",
        long = "preprocess-max-body-bytes",
        env = "PREPROCESS_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "20MiB",
        value_parser = parse_bytes
    )]
    pub max_body_bytes: usize,
    /// Largest baseline JPEG in pixels
    #[arg(
        id = "preprocess_max_pixels",
        long = "preprocess-max-pixels",
        env = "PREPROCESS_MAX_PIXELS",
        value_name = "PIXELS",
        default_value = "50000000"
    )]
    pub max_pixels: NonZeroU64,
    /// Largest upload of any other kind in pixels; no more than of baseline JPEG
    #[arg(
        id = "preprocess_max_pixels_other",
        long = "preprocess-max-pixels-other",
        env = "PREPROCESS_MAX_PIXELS_OTHER",
        value_name = "PIXELS",
        default_value = "25000000"
    )]
    pub max_pixels_other: NonZeroU64,
    /// Most scans of a JPEG; progressive ones have some ten
    #[arg(
        id = "preprocess_max_scans",
        long = "preprocess-max-scans",
        env = "PREPROCESS_MAX_SCANS",
        value_name = "COUNT",
        default_value = "32"
    )]
    pub max_scans: NonZeroU32,
    /// Longest side of an upload in pixels
    #[arg(
        id = "preprocess_max_side",
        long = "preprocess-max-side",
        env = "PREPROCESS_MAX_SIDE",
        value_name = "PIXELS",
        default_value = "16384"
    )]
    pub max_side: NonZeroU32,
    /// Most files in one request
    #[arg(
        id = "preprocess_max_files",
        long = "preprocess-max-files",
        env = "PREPROCESS_MAX_FILES",
        value_name = "COUNT",
        default_value = "16"
    )]
    pub max_files: NonZeroUsize,
    /// Bytes of memory that uploads and the pictures made of them may take together
    #[arg(
        id = "preprocess_max_memory",
        long = "preprocess-max-memory",
        env = "PREPROCESS_MAX_MEMORY",
        value_name = "BYTES",
        default_value = "384MiB",
        value_parser = parse_bytes
    )]
    pub max_memory: usize,
    /// Bytes of memory that making one picture may take; one that needs more is refused (422)
    #[arg(
        id = "preprocess_max_picture_memory",
        long = "preprocess-max-picture-memory",
        env = "PREPROCESS_MAX_PICTURE_MEMORY",
        value_name = "BYTES",
        default_value = "240MiB",
        value_parser = parse_bytes
    )]
    pub max_picture_memory: usize,
    /// Threads that decode, resize and encode [default: one a core]
    #[arg(
        id = "preprocess_threads",
        long = "preprocess-threads",
        env = "PREPROCESS_THREADS",
        value_name = "COUNT",
        default_value_t = cores(),
        hide_default_value = true
    )]
    pub threads: NonZeroUsize,
    /// Pictures that may wait for memory or a thread or have one; more are refused (429)
    #[arg(
        id = "preprocess_queue_items",
        long = "preprocess-queue-items",
        env = "PREPROCESS_QUEUE_ITEMS",
        value_name = "COUNT",
        default_value = "64"
    )]
    pub queue_items: NonZeroUsize,
    /// Pixels of all pictures that may wait for memory or a thread or have one; more are refused (429)
    #[arg(
        id = "preprocess_queue_pixels",
        long = "preprocess-queue-pixels",
        env = "PREPROCESS_QUEUE_PIXELS",
        value_name = "PIXELS",
        default_value_t = 200_000_000
    )]
    pub queue_pixels: u64,
    /// Seconds that an upload, or a picture, may wait for memory; then it is refused (429)
    #[arg(
        id = "preprocess_queue_timeout",
        long = "preprocess-queue-timeout",
        env = "PREPROCESS_QUEUE_TIMEOUT",
        value_name = "SECONDS",
        default_value = "10",
        value_parser = parse_seconds
    )]
    pub queue_timeout: Duration,
    /// Seconds that the body of a request may take to arrive; then it is refused (408)
    #[arg(
        id = "preprocess_upload_timeout",
        long = "preprocess-upload-timeout",
        env = "PREPROCESS_UPLOAD_TIMEOUT",
        value_name = "SECONDS",
        default_value = "30",
        value_parser = parse_seconds
    )]
    pub upload_timeout: Duration,
    /// Seconds after which a request is given up
    #[arg(
        id = "preprocess_request_timeout",
        long = "preprocess-request-timeout",
        env = "PREPROCESS_REQUEST_TIMEOUT",
        value_name = "SECONDS",
        default_value = "60",
        value_parser = parse_seconds
    )]
    pub request_timeout: Duration,
    /// Most seconds that a request for a prediction may wait for it (?wait=)
    #[arg(
        id = "preprocess_max_wait",
        long = "preprocess-max-wait",
        env = "PREPROCESS_MAX_WAIT",
        value_name = "SECONDS",
        default_value = "30",
        value_parser = parse_seconds
    )]
    pub max_wait: Duration,
    /// Seconds that requests under way are given to finish at shutdown
    #[arg(
        id = "preprocess_drain_timeout",
        long = "preprocess-drain-timeout",
        env = "PREPROCESS_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value = "8",
        value_parser = parse_seconds
    )]
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shorter_side: const { NonZeroU32::new(256).unwrap() },
            jpeg_quality: 95,
            max_body_bytes: 20 << 20,
            max_pixels: const { NonZeroU64::new(50_000_000).unwrap() },
            max_pixels_other: const { NonZeroU64::new(25_000_000).unwrap() },
            max_scans: const { NonZeroU32::new(32).unwrap() },
            max_side: const { NonZeroU32::new(16_384).unwrap() },
            max_files: const { NonZeroUsize::new(16).unwrap() },
            max_memory: 384 << 20,
            max_picture_memory: 240 << 20,
            threads: cores(),
            queue_items: const { NonZeroUsize::new(64).unwrap() },
            queue_pixels: 200_000_000,
            queue_timeout: Duration::from_secs(10),
            upload_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            max_wait: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
        }
    }
}

impl Validate for Settings {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (flag, time) in [
            ("max-wait", self.max_wait),
            ("queue-timeout", self.queue_timeout),
            ("upload-timeout", self.upload_timeout),
        ] {
            if time >= self.request_timeout {
                problems.push(format!(
                    "--preprocess-{flag} ({} s) must be less than --preprocess-request-timeout ({} s)",
                    time.as_secs_f64(),
                    self.request_timeout.as_secs_f64(),
                ));
            }
        }
        if self.max_body_bytes == 0 {
            problems.push("--preprocess-max-body-bytes must be more than 0".to_owned());
        }
        if self.max_memory < self.max_body_bytes.saturating_add(LEAST_FOR_PICTURES) {
            problems.push(format!(
                "--preprocess-max-memory ({} bytes) must be at least {LEAST_FOR_PICTURES} bytes more than \
                 --preprocess-max-body-bytes ({} bytes)",
                self.max_memory, self.max_body_bytes,
            ));
        }
        problems
    }
}

impl Settings {
    /// What is made of an upload, and which uploads are refused.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            shorter_side: self.shorter_side.get(),
            jpeg_quality: self.jpeg_quality,
            limits: Limits {
                max_pixels: self.max_pixels.get(),
                max_pixels_other: self.max_pixels_other.get(),
                max_side: self.max_side.get(),
                max_scans: self.max_scans.get(),
                max_bytes: self.memory().pictures.min(self.max_picture_memory as u64),
                kept_bytes: self.memory().kept_by_a_thread,
            },
        }
    }

    /// How the memory is divided. In fixed parts: an upload waits for memory for its picture while it
    /// holds its own, and would wait for itself if the two came from one part.
    pub(crate) fn memory(&self) -> Shares {
        let uploads = (self.max_memory / 4).max(self.max_body_bytes);
        let others = self.max_memory.saturating_sub(uploads);
        let kept_by_a_thread = MOST_KEPT.min(others / 8 / self.threads);
        let pictures = others.saturating_sub(kept_by_a_thread * self.threads.get());
        Shares { uploads: uploads as u64, pictures: pictures as u64, kept_by_a_thread }
    }

    pub(crate) fn http_limits(&self) -> HttpLimits {
        HttpLimits { max_body_bytes: self.max_body_bytes, request_timeout: self.request_timeout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_divided_and_none_is_left_over_or_counted_twice() {
        let settings = |mebibytes: usize, threads: usize| Settings {
            max_memory: mebibytes << 20,
            threads: NonZeroUsize::new(threads).unwrap(),
            ..Settings::default()
        };
        for (settings, uploads) in [(settings(384, 2), 96), (settings(384, 200), 96), (settings(84, 1), 21)] {
            let shares = settings.memory();
            assert_eq!(shares.uploads, uploads << 20);
            let kept = shares.kept_by_a_thread * settings.threads.get();
            assert!(kept as u64 <= shares.pictures / 4, "{shares:?}");
            let sum = shares.uploads + shares.pictures + kept as u64;
            assert_eq!(sum, settings.max_memory as u64, "{shares:?}");
        }
        assert_eq!(settings(384, 2).memory().kept_by_a_thread, MOST_KEPT);
    }
}
