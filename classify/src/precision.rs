//! What numbers the network computes with.

use std::fmt;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{FloatDType, Tensor},
};
use clap::ValueEnum;

/// What numbers the network computes with. Pixels are normalised, and outputs judged, in f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Numbers of 32 bits: 24 of them significant.
    #[default]
    F32,
    /// Numbers of 16 bits, 11 of them significant; on a GPU that has them.
    F16,
}

impl Precision {
    /// Name in the configuration, in metrics and in the ready answer.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// The same for burn.
    pub(crate) fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
        }
    }

    /// `module` with weights of this precision.
    pub(crate) fn of_weights<M: Module>(self, module: M) -> M {
        match self {
            // What they are loaded as.
            Self::F32 => module,
            Self::F16 => module.map(&mut Cast(self.dtype())),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Gives every weight another type.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, weights: Param<Tensor<D>>) -> Param<Tensor<D>> {
        weights.map(|weights| weights.cast(self.0))
    }
}
