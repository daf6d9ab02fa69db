//! Settings of the GPU, from flags and environment variables.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum, builder::BoolishValueParser};
use platform::config::{parse_defaults, parse_seconds};

use crate::{backend::Backend, precision::Precision};

/// Use of a GPU when the configuration names no backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GpuUse {
    /// The service does not start without a GPU.
    Require,
    /// The network runs on a GPU if there is one, else on the CPU, with a warning.
    #[default]
    Prefer,
    /// The network runs on the CPU.
    Never,
}

/// Settings of the GPU.
#[derive(Clone, Debug, PartialEq, Args)]
#[group(id = "classify-gpu-settings")]
pub struct GpuSettings {
    /// Use of a GPU if --classify-backend is not set: require, prefer (else the CPU, with a warning) or never
    #[arg(id = "classify-gpu", long, env = "CLASSIFY_GPU", value_name = "WHEN", value_enum)]
    #[arg(hide_possible_values = true, default_value_t)]
    pub gpu_use: GpuUse,
    /// Accept a software GPU; for tests
    #[arg(id = "classify-allow-software-gpu", long, env = "CLASSIFY_ALLOW_SOFTWARE_GPU")]
    #[arg(action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub allow_software: bool,
    /// Float type on a GPU: f32, or f16 if the GPU supports it
    #[arg(id = "classify-precision", long, env = "CLASSIFY_PRECISION", value_name = "PRECISION", value_enum)]
    #[arg(hide_possible_values = true, default_value_t)]
    pub precision: Precision,
    /// Folder that stores the results of autotune, the choice of the fastest kernels for the GPU [default:
    /// the user's cache folder; target/environment in a checkout]
    #[arg(id = "classify-gpu-cache", long, env = "CLASSIFY_GPU_CACHE", value_name = "FOLDER")]
    pub cache_folder: Option<PathBuf>,
    /// Maximum seconds for one batch on the GPU. After that time, the service ends with an error
    #[arg(id = "classify-gpu-timeout", long, env = "CLASSIFY_GPU_TIMEOUT", value_name = "SECONDS")]
    #[arg(default_value = "20", value_parser = parse_seconds)]
    pub batch_timeout: Duration,
}

impl Default for GpuSettings {
    fn default() -> Self {
        parse_defaults()
    }
}

impl GpuSettings {
    /// Sets the cache folder of CubeCL, which is burn's GPU compiler, to [`Self::cache_folder`].
    ///
    /// CubeCL reads the setting once per process, so only the first call has an effect.
    #[cfg(feature = "gpu")]
    pub(super) fn apply_cache_folder(&self) {
        use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};

        let Some(folder) = &self.cache_folder else { return };
        let mut config = CubeClRuntimeConfig::default().override_from_env();
        config.environment.path = CacheConfig::Directory(folder.clone());
        if !CubeClRuntimeConfig::try_set(config) {
            tracing::debug!(folder = %folder.display(), "the cache folder of the GPU was already set");
        }
    }

    #[cfg(not(feature = "gpu"))]
    #[expect(clippy::unused_self, reason = "no compiled-in backend has a cache")]
    pub(super) fn apply_cache_folder(&self) {}

    /// Returns true if a GPU may run the network.
    ///
    /// `backend` is the backend that the configuration names, or `None` if the configuration names no
    /// backend.
    pub(crate) fn allows_gpu(&self, backend: Option<Backend>) -> bool {
        match backend {
            Some(backend) => backend.is_gpu(),
            None => self.gpu_use != GpuUse::Never && Backend::gpu_backends().next().is_some(),
        }
    }

    /// Returns true if the CPU may run the network when no GPU can be used.
    ///
    /// `backend` is the backend that the configuration names, or `None` if the configuration names no
    /// backend.
    pub(crate) fn allows_cpu(&self, backend: Option<Backend>) -> bool {
        backend.is_none() && self.gpu_use != GpuUse::Require
    }

    /// Returns a message for each setting that is invalid or contradicts another setting or `backend`.
    ///
    /// `backend` is the backend that the configuration names, or `None` if the configuration names no
    /// backend.
    pub(crate) fn problems(&self, backend: Option<Backend>) -> Vec<String> {
        let mut problems = Vec::new();
        let has_gpu_backend = Backend::gpu_backends().next().is_some();
        match (self.gpu_use, backend) {
            (GpuUse::Require, _) if !has_gpu_backend => problems.push(
                "--classify-gpu (CLASSIFY_GPU) requires a GPU, but no backend of this program runs on one: build \
                 it with the cargo feature `wgpu` or `cuda`"
                    .to_owned(),
            ),
            (GpuUse::Require, Some(backend)) if !backend.is_gpu() => problems.push(format!(
                "--classify-gpu (CLASSIFY_GPU) requires a GPU, but --classify-backend (CLASSIFY_BACKEND) {backend} \
                 runs on the CPU"
            )),
            (GpuUse::Never, Some(backend)) if backend.is_gpu() => problems.push(format!(
                "--classify-gpu (CLASSIFY_GPU) rules a GPU out, but --classify-backend (CLASSIFY_BACKEND) \
                 {backend} runs on one"
            )),
            _ => {}
        }
        if self.precision == Precision::F16 {
            let problem = |reason: &dyn std::fmt::Display| {
                format!("--classify-precision (CLASSIFY_PRECISION) f16 needs a GPU, but {reason}")
            };
            match backend {
                _ if !has_gpu_backend => problems.push(problem(
                    &"no backend of this program runs on one: build it with the cargo feature `wgpu` or `cuda`",
                )),
                Some(backend) if !backend.is_gpu() => problems.push(problem(&format_args!(
                    "--classify-backend (CLASSIFY_BACKEND) {backend} runs on the CPU"
                ))),
                None if self.gpu_use == GpuUse::Never => {
                    problems.push(problem(&"--classify-gpu (CLASSIFY_GPU) rules a GPU out"));
                }
                _ => {}
            }
        }
        if self.batch_timeout.is_zero() {
            problems.push(
                "--classify-gpu-timeout (CLASSIFY_GPU_TIMEOUT): with 0 the engine would be lost at once"
                    .to_owned(),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_for(gpu_use: GpuUse) -> GpuSettings {
        GpuSettings { gpu_use, ..GpuSettings::default() }
    }

    #[test]
    fn required_gpu_is_a_problem_without_a_gpu_backend() {
        let has_gpu_backend = Backend::gpu_backends().next().is_some();
        assert_eq!(settings_for(GpuUse::Require).problems(None).is_empty(), has_gpu_backend);
        for accepted in [GpuUse::Prefer, GpuUse::Never] {
            assert_eq!(settings_for(accepted).problems(None), Vec::<String>::new());
        }
    }

    #[test]
    fn backend_that_contradicts_the_use_of_a_gpu_is_a_problem() {
        let cpu = Some(Backend::default());
        assert_eq!(settings_for(GpuUse::Require).problems(cpu).len(), 1);
        assert_eq!(settings_for(GpuUse::Prefer).problems(cpu), Vec::<String>::new());
        for gpu in Backend::gpu_backends() {
            assert_eq!(settings_for(GpuUse::Require).problems(Some(gpu)), Vec::<String>::new());
            assert_eq!(settings_for(GpuUse::Never).problems(Some(gpu)).len(), 1, "{gpu}");
        }
    }

    #[test]
    fn f16_is_a_problem_if_no_gpu_can_be_used() {
        let f16 = |gpu_use| GpuSettings { gpu_use, precision: Precision::F16, ..GpuSettings::default() };
        let has_gpu_backend = Backend::gpu_backends().next().is_some();
        assert_eq!(f16(GpuUse::Prefer).problems(None).is_empty(), has_gpu_backend);
        assert!(f16(GpuUse::Never).problems(None)[0].contains("CLASSIFY_PRECISION"));
        assert!(f16(GpuUse::Prefer).problems(Some(Backend::default()))[0].contains("CLASSIFY_PRECISION"));
        for gpu in Backend::gpu_backends() {
            assert_eq!(f16(GpuUse::Require).problems(Some(gpu)), Vec::<String>::new());
        }
    }

    #[test]
    fn batch_timeout_of_0_is_a_problem() {
        let settings = GpuSettings { batch_timeout: Duration::ZERO, ..GpuSettings::default() };
        assert!(settings.problems(None)[0].contains("CLASSIFY_GPU_TIMEOUT"));
    }
}
