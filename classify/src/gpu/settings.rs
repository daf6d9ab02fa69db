//! What can be tuned about the GPU, from flags and environment.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum, builder::BoolishValueParser};
use platform::config::parse_seconds;

use crate::{backend::Backend, precision::Precision};

/// Whether the network may or must run on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GpuUse {
    /// On a GPU, or not at all: the service ends and says what it looked for
    Require,
    /// On a GPU if there is one, else on the CPU, with a warning
    #[default]
    Prefer,
    /// On the CPU
    Never,
}

/// What can be tuned about the GPU.
#[derive(Clone, Debug, PartialEq, Args)]
#[group(id = "classify_gpu_settings")]
pub struct GpuSettings {
    /// Whether the network runs on a GPU if no backend is named: require, prefer (else the CPU, with a
    /// warning), never
    #[arg(
        id = "classify_gpu",
        long = "classify-gpu",
        env = "CLASSIFY_GPU",
        value_name = "WHEN",
        value_enum,
        hide_possible_values = true,
        default_value = "prefer"
    )]
    pub when: GpuUse,
    /// Take a GPU that is software, too; for tests
    #[arg(
        id = "classify_allow_software_gpu",
        long = "classify-allow-software-gpu",
        env = "CLASSIFY_ALLOW_SOFTWARE_GPU",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new()
    )]
    pub allow_software: bool,
    /// Numbers that a GPU computes with: f32, f16 where it has them
    #[arg(
        id = "classify_precision",
        long = "classify-precision",
        env = "CLASSIFY_PRECISION",
        value_name = "PRECISION",
        value_enum,
        hide_possible_values = true,
        default_value_t = Precision::F32
    )]
    pub precision: Precision,
    /// Folder that keeps which kernels a GPU is fastest with, for the next start [default: the user's
    /// folder for caches; in a checkout target/environment]
    #[arg(
        id = "classify_gpu_cache",
        long = "classify-gpu-cache",
        env = "CLASSIFY_GPU_CACHE",
        value_name = "FOLDER"
    )]
    pub cache: Option<PathBuf>,
    /// Seconds after which a batch that the GPU has not finished counts as lost, and the service ends
    #[arg(
        id = "classify_gpu_timeout",
        long = "classify-gpu-timeout",
        env = "CLASSIFY_GPU_TIMEOUT",
        value_name = "SECONDS",
        default_value = "20",
        value_parser = parse_seconds
    )]
    pub timeout: Duration,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self {
            when: GpuUse::default(),
            allow_software: false,
            precision: Precision::default(),
            cache: None,
            timeout: Duration::from_secs(20),
        }
    }
}

impl GpuSettings {
    /// Tells CubeCL where its cache is. The first call in a process counts; CubeCL reads it once.
    #[cfg(feature = "gpu")]
    pub(super) fn apply_cache(&self) {
        use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};

        let Some(folder) = &self.cache else { return };
        let mut config = CubeClRuntimeConfig::default().override_from_env();
        config.environment.path = CacheConfig::Directory(folder.clone());
        if !CubeClRuntimeConfig::try_set(config) {
            tracing::debug!(folder = %folder.display(), "the GPU's cache had been set before");
        }
    }

    #[cfg(not(feature = "gpu"))]
    #[expect(clippy::unused_self, reason = "there is no GPU backend that would have a cache")]
    pub(super) fn apply_cache(&self) {}

    /// What is wrong with these settings beside `backend`, which is named by the configuration.
    pub(crate) fn problems(&self, backend: Option<Backend>) -> Vec<String> {
        let mut problems = Vec::new();
        let compiled_in = Backend::gpus().next().is_some();
        match (self.when, backend) {
            (GpuUse::Require, _) if !compiled_in => problems.push(
                "--classify-gpu (CLASSIFY_GPU) requires a GPU, and no backend of this program runs on one: build \
                 it with the cargo feature `wgpu` or `cuda`"
                    .to_owned(),
            ),
            (GpuUse::Require, Some(backend)) if !backend.is_gpu() => problems.push(format!(
                "--classify-gpu (CLASSIFY_GPU) requires a GPU, and --classify-backend (CLASSIFY_BACKEND) {backend} \
                 runs on the CPU"
            )),
            (GpuUse::Never, Some(backend)) if backend.is_gpu() => problems.push(format!(
                "--classify-gpu (CLASSIFY_GPU) rules a GPU out, and --classify-backend (CLASSIFY_BACKEND) \
                 {backend} runs on one"
            )),
            _ => {}
        }
        if self.precision == Precision::F16 {
            let problem = |why: &dyn std::fmt::Display| {
                format!("--classify-precision (CLASSIFY_PRECISION) f16 is for a GPU, and {why}")
            };
            match backend {
                _ if !compiled_in => problems.push(problem(
                    &"no backend of this program runs on one: build it with the cargo feature `wgpu` or `cuda`",
                )),
                Some(backend) if !backend.is_gpu() => problems.push(problem(&format_args!(
                    "--classify-backend (CLASSIFY_BACKEND) {backend} runs on the CPU"
                ))),
                None if self.when == GpuUse::Never => {
                    problems.push(problem(&"--classify-gpu (CLASSIFY_GPU) rules one out"));
                }
                _ => {}
            }
        }
        if self.timeout.is_zero() {
            problems.push(
                "--classify-gpu-timeout (CLASSIFY_GPU_TIMEOUT): 0 would give every batch up".to_owned(),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(when: GpuUse) -> GpuSettings {
        GpuSettings { when, ..GpuSettings::default() }
    }

    #[test]
    fn a_gpu_is_required_only_of_a_program_that_has_a_backend_for_it() {
        let compiled_in = Backend::gpus().next().is_some();
        assert_eq!(when(GpuUse::Require).problems(None).is_empty(), compiled_in);
        for fine in [GpuUse::Prefer, GpuUse::Never] {
            assert_eq!(when(fine).problems(None), Vec::<String>::new());
        }
    }

    #[test]
    fn a_named_backend_and_the_use_of_a_gpu_must_agree() {
        let cpu = Some(Backend::default());
        assert_eq!(when(GpuUse::Require).problems(cpu).len(), 1);
        assert_eq!(when(GpuUse::Prefer).problems(cpu), Vec::<String>::new());
        for gpu in Backend::gpus() {
            assert_eq!(when(GpuUse::Require).problems(Some(gpu)), Vec::<String>::new());
            assert_eq!(when(GpuUse::Never).problems(Some(gpu)).len(), 1, "{gpu}");
        }
    }

    #[test]
    fn f16_is_refused_where_no_gpu_can_be_meant() {
        let f16 = |when| GpuSettings { when, precision: Precision::F16, ..GpuSettings::default() };
        let compiled_in = Backend::gpus().next().is_some();
        assert_eq!(f16(GpuUse::Prefer).problems(None).is_empty(), compiled_in);
        assert!(f16(GpuUse::Never).problems(None)[0].contains("CLASSIFY_PRECISION"));
        assert!(f16(GpuUse::Prefer).problems(Some(Backend::default()))[0].contains("CLASSIFY_PRECISION"));
        for gpu in Backend::gpus() {
            assert_eq!(f16(GpuUse::Require).problems(Some(gpu)), Vec::<String>::new());
        }
    }

    #[test]
    fn a_batch_must_be_given_some_time() {
        let settings = GpuSettings { timeout: Duration::ZERO, ..GpuSettings::default() };
        assert!(settings.problems(None)[0].contains("CLASSIFY_GPU_TIMEOUT"));
    }
}
