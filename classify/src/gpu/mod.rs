//! Chooses the backend at start-up and opens its GPU.
//!
//! [`choose_placement`] makes the choice once, before the network is loaded. If the configuration names a
//! backend, the service runs on that backend or does not start. If the configuration names no backend,
//! `CLASSIFY_GPU` decides whether a GPU is required, preferred or ruled out. A software GPU is refused unless
//! the configuration allows software GPUs. Without this check, burn would silently use a software GPU, and
//! the service would be a hundred times slower than on this project's CPU kernels.

mod adapter;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "gpu")]
mod driver_search;
mod engine;
mod settings;
#[cfg(feature = "wgpu")]
mod wgpu;

use std::fmt;

pub use adapter::Adapter;
pub use engine::GpuEngine;
pub use settings::{GpuSettings, GpuUse};

#[cfg(any(feature = "cuda", feature = "wgpu"))]
use crate::backend::GpuApi;
use crate::{backend::Backend, precision::Precision};

/// Backend, float type and GPU that the network runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Backend that runs the network.
    pub backend: Backend,
    /// Float type of the network.
    pub precision: Precision,
    /// The opened GPU, which graphics APIs call an adapter, or `None` if the network runs on the CPU.
    pub adapter: Option<Adapter>,
}

impl Placement {
    /// Returns the placement on `backend`, which must run on the CPU.
    pub fn cpu(backend: Backend) -> Self {
        Self { backend, precision: Precision::F32, adapter: None }
    }
}

/// A backend whose GPU cannot be used, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableGpu {
    backend: Backend,
    reason: String,
}

impl fmt::Display for UnusableGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.reason)
    }
}

/// Error when the configuration requires a GPU, but no GPU of this machine can be used.
#[derive(Debug, thiserror::Error)]
#[error("CLASSIFY_GPU or CLASSIFY_BACKEND requires a GPU, but none can be used: {}", join_reasons(.unusable))]
pub struct NoGpu {
    unusable: Vec<UnusableGpu>,
}

fn join_reasons(unusable: &[UnusableGpu]) -> String {
    unusable.iter().map(UnusableGpu::to_string).collect::<Vec<_>>().join("; ")
}

/// Chooses the backend that runs the network, and opens the GPU if the backend runs on one.
///
/// `backend` is the backend that the configuration names, or `None` if the configuration names no backend.
/// This function blocks while drivers are loaded, so it must not run on a thread that runs async tasks.
///
/// # Errors
/// Returns [`NoGpu`] when a GPU is required and none can be used. The drivers and devices of this machine are then
/// logged.
pub fn choose_placement(backend: Option<Backend>, settings: &GpuSettings) -> Result<Placement, NoGpu> {
    settings.apply_cache_folder();
    let candidates = match backend {
        Some(backend) if !backend.is_gpu() => return Ok(Placement::cpu(backend)),
        Some(backend) => vec![backend],
        None if settings.gpu_use == GpuUse::Never => return Ok(Placement::cpu(Backend::default())),
        None => Backend::gpu_backends().collect(),
    };
    let mut unusable = Vec::new();
    let precision = settings.precision;
    for backend in candidates {
        match open(backend, precision, settings.allow_software) {
            Ok(adapter) => return Ok(Placement { backend, precision, adapter: Some(adapter) }),
            Err(gpu) => unusable.push(gpu),
        }
    }
    if !settings.allows_cpu(backend) {
        log_machine();
        return Err(NoGpu { unusable });
    }
    // `unusable` is empty if no GPU backend is compiled in. The fallback is then expected, so there is no
    // warning.
    if !unusable.is_empty() {
        warn_of_fallback(&join_reasons(&unusable));
    }
    Ok(Placement::cpu(Backend::default()))
}

/// Logs that the default CPU backend runs the network because of `reasons`.
pub(crate) fn warn_of_fallback(reasons: &str) {
    let backend = Backend::default();
    tracing::warn!(%backend, reasons, "no GPU can be used: the network runs on the CPU");
}

/// Opens the GPU of `backend` for this process and checks that it supports `precision`.
///
/// Further calls for the same backend return the same GPU.
///
/// # Errors
/// Returns [`UnusableGpu`] in these cases:
///
/// - `backend` runs on the CPU.
/// - There is no GPU, or it cannot be opened.
/// - The GPU is software, and `allow_software` is false.
/// - The GPU does not support `precision`.
pub fn open(backend: Backend, precision: Precision, allow_software: bool) -> Result<Adapter, UnusableGpu> {
    let unusable = |reason| UnusableGpu { backend, reason };
    let result: Result<Adapter, String> = match backend.gpu_api() {
        #[cfg(feature = "cuda")]
        Some(GpuApi::Cuda) => cuda::open(),
        #[cfg(feature = "wgpu")]
        Some(GpuApi::Wgpu) => wgpu::open(),
        _ => Err("the backend runs on the CPU".to_owned()),
    };
    let adapter = result.map_err(unusable)?;
    if adapter.software && !allow_software {
        return Err(unusable(format!(
            "{adapter} is software, which is slower than this project's CPU kernels; \
             CLASSIFY_ALLOW_SOFTWARE_GPU=1 allows it, for tests"
        )));
    }
    if !backend.device().supports_dtype(precision.dtype()) {
        return Err(unusable(format!(
            "{adapter} does not support {precision}; every GPU supports CLASSIFY_PRECISION=f32"
        )));
    }
    Ok(adapter)
}

/// Logs the adapters, drivers and devices of this machine.
#[cfg(feature = "gpu")]
fn log_machine() {
    let mut findings = Vec::new();
    #[cfg(feature = "wgpu")]
    {
        let adapters = wgpu::list_adapters();
        findings.extend(adapters.iter().map(|adapter| format!("adapter: {adapter}")));
        if adapters.is_empty() {
            findings.push("adapters: none".to_owned());
        }
    }
    findings.extend(driver_search::DriverSearch::default().report());
    for finding in findings {
        tracing::error!(finding, "searched for GPUs and their drivers");
    }
}

#[cfg(not(feature = "gpu"))]
fn log_machine() {}
