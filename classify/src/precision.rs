//! The float type that the network computes in.

use std::fmt;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{FloatDType, Tensor},
};
use clap::ValueEnum;

/// Float type of the network's weights and activations. The network's input and logits are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32 bits, with a 24-bit significand.
    #[default]
    F32,
    /// 16 bits, with an 11-bit significand; only on a GPU that supports this type.
    F16,
}

impl Precision {
    /// Returns the name used in the configuration, the metrics and the response of `/ready`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Returns burn's type for this precision.
    pub(crate) fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
        }
    }

    /// Converts the weights of `module`, which were loaded as f32, to this precision.
    pub(crate) fn convert_weights<M: Module>(self, module: M) -> M {
        match self {
            Self::F32 => module,
            Self::F16 => module.map(&mut CastWeights(self.dtype())),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Casts every weight of a module to the given type.
struct CastWeights(FloatDType);

impl ModuleMapper for CastWeights {
    fn map_float<const D: usize>(&mut self, weights: Param<Tensor<D>>) -> Param<Tensor<D>> {
        weights.map(|weights| weights.cast(self.0))
    }
}
