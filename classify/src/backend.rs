//! What arithmetic the network runs on: one of the backends that cargo features compiled in.
//!
//! A backend is a variant here behind its cargo feature, a device, and a default batch size;
//! everything else is written against burn's run-time [`Device`].

use std::{fmt, num::NonZeroUsize};

use burn::tensor::Device;
use clap::ValueEnum;

/// A compiled-in backend. The service runs on the one it was told, never on another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// burn-flex, burn's pure Rust CPU backend.
    #[cfg(feature = "flex")]
    #[default]
    Flex,
    /// burn-ndarray, deprecated by burn since 0.22.
    #[cfg(feature = "ndarray")]
    #[cfg_attr(not(feature = "flex"), default)]
    Ndarray,
}

impl Backend {
    /// Every compiled-in backend, the default one first.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Name in the configuration, in predictions, in metrics and in the ready answer.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => "flex",
            #[cfg(feature = "ndarray")]
            Self::Ndarray => "ndarray",
        }
    }

    /// Images in a batch unless the configuration says otherwise. One on a CPU: the working set of
    /// several images leaves the cache, so that each of them takes longer than alone.
    pub fn default_max_batch(self) -> NonZeroUsize {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => NonZeroUsize::MIN,
            #[cfg(feature = "ndarray")]
            Self::Ndarray => NonZeroUsize::MIN,
        }
    }

    pub(crate) fn device(self) -> Device {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "kept for as long as burn 0.22 is")]
            Self::Ndarray => Device::ndarray(),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
