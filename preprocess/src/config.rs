//! Settings of the service, from flags and environment variables.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use clap::{Args, value_parser};
use platform::{
    config::{Validate, parse_bytes, parse_defaults, parse_seconds},
    cpu::cores,
    http::{BodyLimits, BodyReceiver},
};

use crate::image::{Limits, Recipe};

/// Minimum number of bytes by which the memory limit must exceed the maximum length of a body.
///
/// This leaves enough memory to process one usual photo at a time.
const MIN_PROCESSING_BYTES: usize = 64 << 20;

/// Maximum total length, in bytes, of the buffers that a thread keeps for the next image.
///
/// The buffers for a photo that is scaled down while it is decoded are shorter.
const MAX_KEPT_BYTES_PER_THREAD: usize = 8 << 20;

/// The shares into which the memory limit is divided, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryShares {
    /// Memory for uploaded files.
    pub(crate) upload_bytes: u64,
    /// Memory for processing uploads.
    pub(crate) processing_bytes: u64,
    /// Memory for the buffers that one thread keeps, even while the thread is idle.
    pub(crate) kept_bytes_per_thread: usize,
}

/// Settings of the service.
///
/// The flags and environment variables are named after the fields. The fields have the prefix `preprocess`
/// because the program `image-pipeline` runs both services and has the flags of both.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(id = "preprocess")]
pub struct Settings {
    /// Shorter side of the stored image in pixels; smaller images keep their size [default: 256, or more in
    /// image-pipeline if the model needs more]
    #[arg(long, env, value_name = "PIXELS")]
    pub preprocess_shorter_side: Option<NonZeroU32>,
    /// JPEG quality of the stored image, 1 to 100
    #[arg(long, env, value_name = "QUALITY", default_value = "95")]
    #[arg(value_parser = value_parser!(u8).range(1..=100))]
    pub preprocess_jpeg_quality: u8,
    /// Maximum length of a request body in bytes, as in 512KiB or 32MiB; longer ones are refused (413)
    #[arg(long, env, value_name = "BYTES", default_value = "32MiB", value_parser = parse_bytes)]
    pub preprocess_max_body_bytes: usize,
    /// Maximum number of pixels of a baseline JPEG, a HEIC or an AVIF
    #[arg(long, env, value_name = "PIXELS", default_value = "64000000")]
    pub preprocess_max_pixels: NonZeroU64,
    /// Maximum number of pixels of any other upload; --preprocess-max-pixels applies as well
    #[arg(long, env, value_name = "PIXELS", default_value = "30000000")]
    pub preprocess_max_pixels_other: NonZeroU64,
    /// Maximum number of scans of a JPEG; progressive JPEGs usually have about ten
    #[arg(long, env, value_name = "COUNT", default_value = "32")]
    pub preprocess_max_scans: NonZeroU32,
    /// Maximum length of a side of an upload in pixels
    #[arg(long, env, value_name = "PIXELS", default_value = "16384")]
    pub preprocess_max_side: NonZeroU32,
    /// Maximum number of files in one request
    #[arg(long, env, value_name = "COUNT", default_value = "16")]
    pub preprocess_max_files: NonZeroUsize,
    /// Maximum memory in bytes for uploads and their processing together
    #[arg(long, env, value_name = "BYTES", default_value = "320MiB", value_parser = parse_bytes)]
    pub preprocess_max_memory: usize,
    /// Maximum memory in bytes for processing one image; images that need more are refused (422)
    #[arg(long, env, value_name = "BYTES", default_value = "240MiB", value_parser = parse_bytes)]
    pub preprocess_max_picture_memory: usize,
    /// Number of threads that decode, resize and encode [default: one per core]
    #[arg(long, env, value_name = "COUNT", default_value_t = cores(), hide_default_value = true)]
    pub preprocess_threads: NonZeroUsize,
    /// Maximum number of images that are waiting or being processed; further images are refused (429)
    #[arg(long, env, value_name = "COUNT", default_value = "64")]
    pub preprocess_queue_items: NonZeroUsize,
    /// Maximum total number of pixels of the images that are waiting or being processed; further images are
    /// refused (429)
    #[arg(long, env, value_name = "PIXELS", default_value = "200000000")]
    pub preprocess_queue_pixels: u64,
    /// Maximum seconds that an upload or an image waits for memory before it is refused (429)
    #[arg(long, env, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub preprocess_queue_timeout: Duration,
    /// Maximum seconds for a request body to arrive before the request is refused (408)
    #[arg(long, env, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub preprocess_upload_timeout: Duration,
    /// Minimum bytes per second at which a request body must arrive, after --preprocess-upload-grace; slower
    /// ones are refused (408)
    #[arg(long, env, value_name = "BYTES", default_value = "1KiB", value_parser = parse_bytes)]
    pub preprocess_min_upload_rate: usize,
    /// Maximum seconds by which a request body may fall behind --preprocess-min-upload-rate, and so the longest
    /// pause of an upload
    #[arg(long, env, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub preprocess_upload_grace: Duration,
    /// Maximum seconds for a whole request
    #[arg(long, env, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub preprocess_request_timeout: Duration,
    /// Maximum seconds that a request waits for a prediction (?wait=)
    #[arg(long, env, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub preprocess_max_wait: Duration,
    /// Maximum seconds that requests in progress get to finish at shutdown
    #[arg(long, env, value_name = "SECONDS", default_value = "8", value_parser = parse_seconds)]
    pub preprocess_drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        parse_defaults()
    }
}

impl Validate for Settings {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (flag, timeout) in [
            ("max-wait", self.preprocess_max_wait),
            ("queue-timeout", self.preprocess_queue_timeout),
            ("upload-timeout", self.preprocess_upload_timeout),
        ] {
            if timeout >= self.preprocess_request_timeout {
                problems.push(format!(
                    "--preprocess-{flag} ({} s) must be less than --preprocess-request-timeout ({} s)",
                    timeout.as_secs_f64(),
                    self.preprocess_request_timeout.as_secs_f64(),
                ));
            }
        }
        if self.preprocess_max_body_bytes == 0 {
            problems.push("--preprocess-max-body-bytes must be more than 0".to_owned());
        }
        if self.preprocess_upload_grace.is_zero() && self.preprocess_min_upload_rate > 0 {
            problems.push("--preprocess-upload-grace must be more than 0".to_owned());
        }
        if self.preprocess_max_memory < self.preprocess_max_body_bytes.saturating_add(MIN_PROCESSING_BYTES) {
            problems.push(format!(
                "--preprocess-max-memory ({} bytes) must be at least {MIN_PROCESSING_BYTES} bytes more than \
                 --preprocess-max-body-bytes ({} bytes)",
                self.preprocess_max_memory, self.preprocess_max_body_bytes,
            ));
        }
        problems
    }
}

impl Settings {
    /// Shorter side of the stored image if the settings do not contain one, in pixels.
    ///
    /// Most networks for 224×224 pixels resize images to 256 pixels before they crop them.
    pub const DEFAULT_SHORTER_SIDE: NonZeroU32 = NonZeroU32::new(256).unwrap();

    /// Returns the recipe: the parameters of the stored image and the limits on uploads.
    pub fn recipe(&self) -> Recipe {
        let shares = self.memory_shares();
        Recipe {
            shorter_side: self.preprocess_shorter_side.unwrap_or(Self::DEFAULT_SHORTER_SIDE).get(),
            jpeg_quality: self.preprocess_jpeg_quality,
            limits: Limits {
                max_pixels: self.preprocess_max_pixels.get(),
                max_pixels_other: self.preprocess_max_pixels_other.get(),
                max_side: self.preprocess_max_side.get(),
                max_scans: self.preprocess_max_scans.get(),
                max_processing_bytes: shares.processing_bytes.min(self.preprocess_max_picture_memory as u64),
                max_kept_bytes: shares.kept_bytes_per_thread,
            },
        }
    }

    /// Divides the memory limit into fixed shares.
    ///
    /// Uploaded files get an eighth of the memory, or more if the largest body needs more. An eighth is enough,
    /// because a body reserves memory only for the part that has arrived. The kept buffers of all threads get
    /// at most an eighth of the rest. Processing gets the remainder.
    ///
    /// Uploaded files and processing have separate shares, because an upload holds memory of the first share
    /// while it waits for memory of the second. With a common share, uploads could wait for each other
    /// forever.
    pub(crate) fn memory_shares(&self) -> MemoryShares {
        let largest_upload_bytes = BodyReceiver::max_reserved_bytes(self.preprocess_max_body_bytes);
        let upload_bytes = (self.preprocess_max_memory / 8).max(largest_upload_bytes);
        let rest = self.preprocess_max_memory.saturating_sub(upload_bytes);
        let kept_bytes_per_thread = MAX_KEPT_BYTES_PER_THREAD.min(rest / 8 / self.preprocess_threads);
        let processing_bytes = rest.saturating_sub(kept_bytes_per_thread * self.preprocess_threads.get());
        MemoryShares {
            upload_bytes: upload_bytes as u64,
            processing_bytes: processing_bytes as u64,
            kept_bytes_per_thread,
        }
    }

    pub(crate) fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            max_bytes: self.preprocess_max_body_bytes,
            timeout: self.preprocess_upload_timeout,
            min_rate: self.preprocess_min_upload_rate,
            grace: self.preprocess_upload_grace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_shares_add_up_to_the_limit() {
        let settings_with = |memory_mebibytes: usize, thread_count: usize| Settings {
            preprocess_max_memory: memory_mebibytes << 20,
            preprocess_threads: NonZeroUsize::new(thread_count).unwrap(),
            ..Settings::default()
        };
        let largest_upload_bytes = BodyReceiver::max_reserved_bytes(32 << 20);
        for (settings, upload_bytes) in [
            (settings_with(320, 2), 40 << 20),
            (settings_with(320, 200), 40 << 20),
            (settings_with(96, 1), largest_upload_bytes),
        ] {
            let shares = settings.memory_shares();
            assert_eq!(shares.upload_bytes, upload_bytes as u64);
            let kept_bytes = (shares.kept_bytes_per_thread * settings.preprocess_threads.get()) as u64;
            // The kept buffers get at most an eighth of the rest, and processing at least seven eighths.
            assert!(kept_bytes <= shares.processing_bytes / 4, "{shares:?}");
            let sum = shares.upload_bytes + shares.processing_bytes + kept_bytes;
            assert_eq!(sum, settings.preprocess_max_memory as u64, "{shares:?}");
        }
        assert_eq!(settings_with(320, 2).memory_shares().kept_bytes_per_thread, MAX_KEPT_BYTES_PER_THREAD);
    }

    #[test]
    fn default_memory_leaves_a_share_for_small_pictures_beside_the_largest_one() {
        let settings = Settings { preprocess_threads: NonZeroUsize::new(4).unwrap(), ..Settings::default() };
        let limits = settings.recipe().limits;
        assert_eq!(limits.max_processing_bytes, settings.preprocess_max_picture_memory as u64);
        assert!(settings.memory_shares().processing_bytes > limits.max_processing_bytes);
    }

    #[test]
    fn default_settings_are_valid() {
        assert_eq!(Settings::default().problems(), Vec::<String>::new());
    }
}
