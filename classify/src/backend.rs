//! What arithmetic the network runs on: one of the backends that cargo features compiled in.
//!
//! A backend is a variant here behind its cargo feature, a device, and a default batch size;
//! everything else is written against burn's run-time [`Device`].

use std::{fmt, num::NonZeroUsize};

use burn::tensor::Device;
use clap::ValueEnum;
use fused::{Execution, Isa};

/// A compiled-in backend. The service runs on the one it was told, never on another. The default is the
/// best one that needs no GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// burn-flex with the convolutions on our CPU kernels.
    #[cfg(feature = "flex")]
    #[default]
    Fused,
    /// burn-flex, burn's pure Rust CPU backend, as it is.
    #[cfg(feature = "flex")]
    Flex,
    /// burn-ndarray, deprecated by burn since 0.22.
    #[cfg(feature = "ndarray")]
    #[cfg_attr(not(feature = "flex"), default)]
    Ndarray,
    /// An NVIDIA GPU by burn-cuda.
    #[cfg(feature = "cuda")]
    Cuda,
    /// A GPU by burn-wgpu: Vulkan on Linux, Metal or DirectX 12 elsewhere.
    #[cfg(feature = "wgpu")]
    Wgpu,
}

/// Images that a GPU takes at once unless the configuration says otherwise: enough to fill one, and few
/// enough that the first of them does not wait long for the last.
#[cfg(feature = "gpu")]
const GPU_BATCH: NonZeroUsize = NonZeroUsize::new(32).unwrap();

impl Backend {
    /// Every compiled-in backend, the default one first.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Those of them that run on the CPU.
    pub fn cpus() -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(|backend| !backend.is_gpu())
    }

    /// Those of them that run on a GPU, in the order in which they are tried.
    pub fn gpus() -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(|backend| backend.is_gpu())
    }

    /// Name in the configuration, in predictions, in metrics and in the ready answer.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "flex")]
            Self::Fused => "fused",
            #[cfg(feature = "flex")]
            Self::Flex => "flex",
            #[cfg(feature = "ndarray")]
            Self::Ndarray => "ndarray",
            #[cfg(feature = "cuda")]
            Self::Cuda => "cuda",
            #[cfg(feature = "wgpu")]
            Self::Wgpu => "wgpu",
        }
    }

    /// Whether it runs on a GPU, which must be opened first: [`gpu::open`](crate::gpu::open).
    pub fn is_gpu(self) -> bool {
        match self {
            #[cfg(feature = "flex")]
            Self::Fused | Self::Flex => false,
            #[cfg(feature = "ndarray")]
            Self::Ndarray => false,
            #[cfg(feature = "cuda")]
            Self::Cuda => true,
            #[cfg(feature = "wgpu")]
            Self::Wgpu => true,
        }
    }

    /// Engines that share `threads` unless the configuration says otherwise: one a thread on a CPU, where
    /// an image a thread is the most images per second. A GPU runs one batch after another whoever sends
    /// them.
    pub fn default_engines(self, threads: NonZeroUsize) -> NonZeroUsize {
        match self {
            #[cfg(feature = "flex")]
            Self::Fused | Self::Flex => threads,
            #[cfg(feature = "ndarray")]
            Self::Ndarray => threads,
            #[cfg(feature = "cuda")]
            Self::Cuda => NonZeroUsize::MIN,
            #[cfg(feature = "wgpu")]
            Self::Wgpu => NonZeroUsize::MIN,
        }
    }

    /// Images in a batch unless the configuration says otherwise: one on a CPU, where the working set of
    /// several leaves the cache, so that each of them takes longer than alone.
    pub fn default_max_batch(self) -> NonZeroUsize {
        match self {
            #[cfg(feature = "flex")]
            Self::Fused | Self::Flex => NonZeroUsize::MIN,
            #[cfg(feature = "ndarray")]
            Self::Ndarray => NonZeroUsize::MIN,
            #[cfg(feature = "cuda")]
            Self::Cuda => GPU_BATCH,
            #[cfg(feature = "wgpu")]
            Self::Wgpu => GPU_BATCH,
        }
    }

    pub(crate) fn device(self) -> Device {
        match self {
            #[cfg(feature = "flex")]
            Self::Fused | Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "kept for as long as burn 0.22 is")]
            Self::Ndarray => Device::ndarray(),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::cuda(0),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        }
    }
}

impl Backend {
    /// The instructions that its kernels use, if it has a choice: `isa`, or the widest of the CPU.
    pub fn instructions(self, isa: Option<Isa>) -> Option<Isa> {
        match self.execution(isa) {
            Execution::Kernels(isa) => Some(isa),
            Execution::Plain => None,
        }
    }

    /// How the chains of the network run, with instructions no wider than `isa` if it is given.
    #[cfg_attr(not(feature = "flex"), expect(unused_variables, reason = "no other backend has a choice"))]
    pub(crate) fn execution(self, isa: Option<Isa>) -> Execution {
        match self {
            #[cfg(feature = "flex")]
            Self::Fused => Execution::Kernels(isa.unwrap_or_else(Isa::detect)),
            #[cfg(feature = "flex")]
            Self::Flex => Execution::Plain,
            #[cfg(feature = "ndarray")]
            Self::Ndarray => Execution::Plain,
            #[cfg(feature = "cuda")]
            Self::Cuda => Execution::Plain,
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Execution::Plain,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
