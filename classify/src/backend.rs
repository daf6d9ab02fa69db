//! The burn backends that are compiled into this program and can run the network.
//!
//! A backend computes burn's tensors on a CPU or a GPU. Each backend is an entry of the table `BACKENDS`. A
//! cargo feature decides whether the entry is compiled in. All other code is the same for every backend,
//! because burn's type [`Device`] selects the backend at run time.

use std::{fmt, num::NonZeroUsize};

use burn::tensor::Device;
use clap::{ValueEnum, builder::PossibleValue};
use fused::{Execution, Isa};

/// A compiled-in backend. The default is the first entry of `BACKENDS`, a CPU backend.
#[derive(Clone, Copy)]
pub struct Backend(&'static Descriptor);

/// Properties of a backend.
struct Descriptor {
    /// Name in the configuration, in predictions, in metrics and in the response of `/ready`.
    name: &'static str,
    /// Description in `--help`.
    help: &'static str,
    /// Programming interface of the GPU, or `None` for a backend that runs on the CPU.
    gpu_api: Option<GpuApi>,
    /// True if the backend runs convolutions on this project's CPU kernels.
    has_cpu_kernels: bool,
    /// Default maximum number of images in a batch.
    default_max_batch: NonZeroUsize,
    /// Function that creates burn's device for the backend.
    create_device: fn() -> Device,
}

/// Programming interface of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuApi {
    /// NVIDIA's CUDA.
    Cuda,
    /// The API of wgpu, which uses Vulkan on Linux, and Metal or DirectX 12 elsewhere.
    Wgpu,
}

/// Default maximum number of images in a batch on a CPU.
///
/// The maximum is 1. The working set of several images exceeds the cache, so each image of a larger batch
/// would take longer.
const CPU_MAX_BATCH: NonZeroUsize = NonZeroUsize::MIN;

/// Default maximum number of images in a batch on a GPU.
///
/// The number is large enough to use the whole GPU and small enough for a low latency.
#[cfg(feature = "gpu")]
const GPU_MAX_BATCH: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Every compiled-in backend, beginning with the default. The service tries GPU backends in this order.
static BACKENDS: &[Backend] = &[
    #[cfg(feature = "flex")]
    Backend(&Descriptor {
        name: "fused",
        help: "burn-flex with this project's CPU kernels for convolutions",
        gpu_api: None,
        has_cpu_kernels: true,
        default_max_batch: CPU_MAX_BATCH,
        create_device: Device::flex,
    }),
    #[cfg(feature = "flex")]
    Backend(&Descriptor {
        name: "flex",
        help: "burn-flex, burn's CPU backend in pure Rust",
        gpu_api: None,
        has_cpu_kernels: false,
        default_max_batch: CPU_MAX_BATCH,
        create_device: Device::flex,
    }),
    #[cfg(feature = "ndarray")]
    Backend(&Descriptor {
        name: "ndarray",
        help: "burn-ndarray, which burn deprecated in 0.22",
        gpu_api: None,
        has_cpu_kernels: false,
        default_max_batch: CPU_MAX_BATCH,
        #[expect(deprecated, reason = "supported until a burn release drops it")]
        create_device: Device::ndarray,
    }),
    #[cfg(feature = "cuda")]
    Backend(&Descriptor {
        name: "cuda",
        help: "An NVIDIA GPU through burn-cuda",
        gpu_api: Some(GpuApi::Cuda),
        has_cpu_kernels: false,
        default_max_batch: GPU_MAX_BATCH,
        create_device: || Device::cuda(0),
    }),
    #[cfg(feature = "wgpu")]
    Backend(&Descriptor {
        name: "wgpu",
        help: "A GPU through burn-wgpu: Vulkan on Linux, Metal or DirectX 12 elsewhere",
        gpu_api: Some(GpuApi::Wgpu),
        has_cpu_kernels: false,
        default_max_batch: GPU_MAX_BATCH,
        create_device: || Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
    }),
];

impl Backend {
    /// Returns every compiled-in backend, beginning with the default.
    pub fn all() -> &'static [Self] {
        BACKENDS
    }

    /// Returns the backends that run on the CPU.
    pub fn cpu_backends() -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(|backend| !backend.is_gpu())
    }

    /// Returns the backends that run on a GPU, in the order in which they are tried.
    pub fn gpu_backends() -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(|backend| backend.is_gpu())
    }

    /// Returns the name used in the configuration, predictions, metrics and the response of `/ready`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Returns true if the backend runs on a GPU.
    ///
    /// [`gpu::open`](crate::gpu::open) must open the GPU before the backend is used.
    pub fn is_gpu(self) -> bool {
        self.0.gpu_api.is_some()
    }

    /// Returns the programming interface of the backend's GPU.
    ///
    /// Returns `None` for a backend that runs on the CPU.
    pub fn gpu_api(self) -> Option<GpuApi> {
        self.0.gpu_api
    }

    /// Returns the default number of engines that share `thread_count` threads.
    ///
    /// On a CPU there is one engine per thread, which gives the highest throughput. On a GPU there is one
    /// engine. A GPU runs one batch at a time, so a second engine would only wait.
    pub fn default_engine_count(self, thread_count: NonZeroUsize) -> NonZeroUsize {
        if self.is_gpu() { NonZeroUsize::MIN } else { thread_count }
    }

    /// Returns the default maximum number of images in a batch.
    pub fn default_max_batch(self) -> NonZeroUsize {
        self.0.default_max_batch
    }

    /// Returns the instruction set that the CPU kernels use, or `None` for a backend without CPU kernels.
    ///
    /// The instruction set is `isa` if given, else the widest instruction set of this CPU.
    pub fn kernel_isa(self, isa: Option<Isa>) -> Option<Isa> {
        self.0.has_cpu_kernels.then(|| isa.unwrap_or_else(Isa::detect))
    }

    /// Returns the implementation of convolutions: this project's CPU kernels or burn's own operators.
    ///
    /// The CPU kernels use the instruction set `isa` if given, else the widest of this CPU.
    pub(crate) fn execution(self, isa: Option<Isa>) -> Execution {
        self.kernel_isa(isa).map_or(Execution::Plain, Execution::Kernels)
    }

    /// Returns burn's device for this backend.
    pub(crate) fn device(self) -> Device {
        (self.0.create_device)()
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
    fn default_backend_runs_on_the_cpu() {
        assert!(!Backend::default().is_gpu());
    }

    #[test]
    fn every_backend_has_a_unique_name_and_is_parsed_from_it() {
        for &backend in Backend::all() {
            assert_eq!(Backend::all().iter().filter(|other| other.name() == backend.name()).count(), 1);
            assert_eq!(Backend::from_str(backend.name(), false), Ok(backend));
        }
    }
}
