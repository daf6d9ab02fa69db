//! The compiled-in backends: the implementations of burn's tensors that the network can run on.
//!
//! Each backend is an entry of the table `BACKENDS` behind its cargo feature. All other code uses burn's run-time
//! [`Device`].

use std::{fmt, num::NonZeroUsize};

use burn::tensor::Device;
use clap::{ValueEnum, builder::PossibleValue};
use fused::{Execution, Isa};

/// A compiled-in backend. The default is the first one of the table, which always runs on the CPU.
#[derive(Clone, Copy)]
pub struct Backend(&'static Descriptor);

/// Everything that depends on the backend.
struct Descriptor {
    /// Name in the configuration, in predictions, in metrics and in the response of `/ready`.
    name: &'static str,
    /// Sentence for `--help`.
    help: &'static str,
    /// Programming interface of the GPU; `None` for a backend that runs on the CPU.
    gpu: Option<GpuApi>,
    /// True if fused chains run on this project's CPU kernels.
    has_kernels: bool,
    /// Largest batch unless the configuration sets another.
    default_max_batch: NonZeroUsize,
    /// Returns burn's device.
    device: fn() -> Device,
}

/// Programming interface of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuApi {
    /// NVIDIA's CUDA.
    Cuda,
    /// wgpu: Vulkan on Linux, Metal or DirectX 12 elsewhere.
    Wgpu,
}

/// Batch size on a CPU. The working set of several images exceeds the cache, so that each of them would
/// take longer than alone.
const CPU_BATCH: NonZeroUsize = NonZeroUsize::MIN;

/// Batch size on a GPU: large enough to use the whole GPU, small enough for a low latency.
#[cfg(feature = "gpu")]
const GPU_BATCH: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Every compiled-in backend, the default one first. GPU backends are tried in this order.
static BACKENDS: &[Backend] = &[
    #[cfg(feature = "flex")]
    Backend(&Descriptor {
        name: "fused",
        help: "burn-flex with the convolutions on our CPU kernels",
        gpu: None,
        has_kernels: true,
        default_max_batch: CPU_BATCH,
        device: Device::flex,
    }),
    #[cfg(feature = "flex")]
    Backend(&Descriptor {
        name: "flex",
        help: "burn-flex, burn's pure Rust CPU backend, as it is",
        gpu: None,
        has_kernels: false,
        default_max_batch: CPU_BATCH,
        device: Device::flex,
    }),
    #[cfg(feature = "ndarray")]
    Backend(&Descriptor {
        name: "ndarray",
        help: "burn-ndarray, deprecated by burn since 0.22",
        gpu: None,
        has_kernels: false,
        default_max_batch: CPU_BATCH,
        #[expect(deprecated, reason = "supported until a burn release drops it")]
        device: Device::ndarray,
    }),
    #[cfg(feature = "cuda")]
    Backend(&Descriptor {
        name: "cuda",
        help: "An NVIDIA GPU by burn-cuda",
        gpu: Some(GpuApi::Cuda),
        has_kernels: false,
        default_max_batch: GPU_BATCH,
        device: || Device::cuda(0),
    }),
    #[cfg(feature = "wgpu")]
    Backend(&Descriptor {
        name: "wgpu",
        help: "A GPU by burn-wgpu: Vulkan on Linux, Metal or DirectX 12 elsewhere",
        gpu: Some(GpuApi::Wgpu),
        has_kernels: false,
        default_max_batch: GPU_BATCH,
        device: || Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
    }),
];

impl Backend {
    /// Returns every compiled-in backend, the default one first.
    pub fn all() -> &'static [Self] {
        BACKENDS
    }

    /// Returns the backends that run on the CPU.
    pub fn cpus() -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(|backend| !backend.is_gpu())
    }

    /// Returns the backends that run on a GPU, in the order in which they are tried.
    pub fn gpus() -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(|backend| backend.is_gpu())
    }

    /// Returns the name used in the configuration, predictions, metrics and the response of `/ready`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Returns true if the backend runs on a GPU. [`gpu::open`](crate::gpu::open) must open it first.
    pub fn is_gpu(self) -> bool {
        self.0.gpu.is_some()
    }

    /// Returns the programming interface of the GPU, or `None` for a backend that runs on the CPU.
    pub fn gpu_api(self) -> Option<GpuApi> {
        self.0.gpu
    }

    /// Returns the number of engines that share `threads` unless the configuration sets another.
    ///
    /// On a CPU it is one engine per thread, which gives the highest throughput. A GPU runs one batch
    /// after another, so that further engines would only wait.
    pub fn default_engine_count(self, threads: NonZeroUsize) -> NonZeroUsize {
        if self.is_gpu() { NonZeroUsize::MIN } else { threads }
    }

    /// Returns the largest batch unless the configuration sets another.
    pub fn default_max_batch(self) -> NonZeroUsize {
        self.0.default_max_batch
    }

    /// Returns the instruction set that the CPU kernels use, or `None` for a backend without kernels.
    ///
    /// This is `isa` if given, else the widest one of this CPU.
    pub fn kernel_isa(self, isa: Option<Isa>) -> Option<Isa> {
        self.0.has_kernels.then(|| isa.unwrap_or_else(Isa::detect))
    }

    /// Returns how fused chains run, with instructions no wider than `isa` if given.
    pub(crate) fn execution(self, isa: Option<Isa>) -> Execution {
        self.kernel_isa(isa).map_or(Execution::Plain, Execution::Kernels)
    }

    /// Returns burn's device for this backend.
    pub(crate) fn device(self) -> Device {
        (self.0.device)()
    }
}

impl Default for Backend {
    fn default() -> Self {
        BACKENDS[0]
    }
}

impl PartialEq for Backend {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Backend {}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueEnum for Backend {
    fn value_variants<'a>() -> &'a [Self] {
        BACKENDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.0.help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_backend_runs_on_the_cpu() {
        assert!(!Backend::default().is_gpu());
    }

    #[test]
    fn every_name_is_unique_and_is_parsed_as_its_backend() {
        for &backend in Backend::all() {
            assert_eq!(Backend::all().iter().filter(|other| other.name() == backend.name()).count(), 1);
            assert_eq!(Backend::from_str(backend.name(), false), Ok(backend));
        }
    }
}
