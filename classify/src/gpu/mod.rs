//! Whether the network runs on a GPU, and on which: decided once, before anything is loaded, and told.
//!
//! [`place`] decides by the settings. A backend that is named is the one that runs, or none does. With no
//! name, `CLASSIFY_GPU` says whether a GPU must be used, may be used or must not. An adapter that is
//! software, a GPU in name only, is refused unless it is allowed: burn itself takes one without a word,
//! and the service would be a hundred times slower than its own CPU kernels.

mod adapter;
#[cfg(feature = "cuda")]
mod cuda;
mod engine;
mod normalise;
#[cfg(feature = "gpu")]
mod search;
mod settings;
#[cfg(feature = "wgpu")]
mod wgpu;

use std::fmt;

pub use adapter::Adapter;
pub use engine::GpuEngine;
pub(crate) use normalise::Normalise;
pub use settings::{GpuSettings, GpuUse};

use crate::{backend::Backend, config::Settings, precision::Precision};

/// What the network runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The arithmetic.
    pub backend: Backend,
    /// The numbers.
    pub precision: Precision,
    /// The GPU, if it is one.
    pub adapter: Option<Adapter>,
}

impl Placement {
    /// On the CPU.
    pub fn cpu(backend: Backend) -> Self {
        Self { backend, precision: Precision::F32, adapter: None }
    }
}

/// Why a backend has no GPU to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    backend: Backend,
    reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.reason)
    }
}

/// A GPU was required, and there is none to be used.
#[derive(Debug, thiserror::Error)]
pub struct NoGpu {
    refusals: Vec<Refusal>,
    seen: String,
}

impl fmt::Display for NoGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a GPU is required (CLASSIFY_GPU, CLASSIFY_BACKEND), and none can be used")?;
        for refusal in &self.refusals {
            write!(f, "\n  {refusal}")?;
        }
        if !self.seen.is_empty() {
            write!(f, "\nWhat was looked at:\n{}", self.seen)?;
        }
        Ok(())
    }
}

/// Decides what the network runs on, and opens the GPU if it is one. Takes as long as the drivers take
/// to load: not for an async worker.
///
/// # Errors
/// [`NoGpu`] when one is required.
pub fn place(settings: &Settings) -> Result<Placement, NoGpu> {
    let gpu = &settings.gpu;
    gpu.apply_cache();
    let (candidates, required) = match settings.backend {
        Some(backend) if !backend.is_gpu() => return Ok(Placement::cpu(backend)),
        Some(backend) => (vec![backend], true),
        None if gpu.when == GpuUse::Never => return Ok(Placement::cpu(Backend::default())),
        None => (Backend::gpus().collect(), gpu.when == GpuUse::Require),
    };
    let mut refusals = Vec::new();
    let precision = gpu.precision;
    for backend in candidates {
        match open(backend, precision, gpu.allow_software) {
            Ok(adapter) => return Ok(Placement { backend, precision, adapter: Some(adapter) }),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if required {
        return Err(NoGpu { refusals, seen: seen() });
    }
    let fallback = Backend::default();
    // Without a GPU backend in this program nobody expects one.
    if !refusals.is_empty() {
        let reasons = refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ");
        tracing::warn!(backend = %fallback, reasons, "no GPU can be used: the network runs on the CPU");
    }
    Ok(Placement::cpu(fallback))
}

/// Opens the GPU of `backend` for this process, to compute in `precision`; again and again is the same as
/// once.
///
/// # Errors
/// [`Refusal`] when `backend` is none of the GPU's, there is no adapter, only a software one and that is
/// not allowed, or one that does not have `precision`.
pub fn open(backend: Backend, precision: Precision, allow_software: bool) -> Result<Adapter, Refusal> {
    let refuse = |reason| Refusal { backend, reason };
    let opened: Result<Adapter, String> = match backend {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::open(),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => wgpu::open(),
        _ => Err("it runs on the CPU".to_owned()),
    };
    let adapter = opened.map_err(refuse)?;
    if adapter.software && !allow_software {
        return Err(refuse(format!(
            "{adapter} is software, which is slower than the CPU kernels here; \
             CLASSIFY_ALLOW_SOFTWARE_GPU=1 allows it, for tests"
        )));
    }
    if !backend.device().supports_dtype(precision.dtype()) {
        return Err(refuse(format!(
            "{adapter} does not compute in {precision}; CLASSIFY_PRECISION=f32 is what every GPU does"
        )));
    }
    Ok(adapter)
}

/// What this machine has of what a GPU needs, a line each.
#[cfg(feature = "gpu")]
fn seen() -> String {
    let mut lines = Vec::new();
    #[cfg(feature = "wgpu")]
    {
        let adapters = wgpu::adapters();
        lines.extend(adapters.iter().map(|adapter| format!("  adapter: {adapter}")));
        if adapters.is_empty() {
            lines.push("  adapters: none".to_owned());
        }
    }
    lines.extend(search::Search::default().report());
    lines.join("\n")
}

#[cfg(not(feature = "gpu"))]
fn seen() -> String {
    String::new()
}
