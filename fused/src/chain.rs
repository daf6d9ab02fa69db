//! The burn module.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};

use crate::{
    execution::{self, Execution},
    plan::Plan,
};

/// A chain of fused steps with its weights, as generated code holds it.
#[derive(Module, Debug)]
pub struct Chain {
    /// Weights and bias of each convolution, one after another in the order of the steps.
    weights: Param<Tensor<1>>,
    #[module(skip)]
    shared: Arc<Shared>,
}

/// What the clones of a chain share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    #[cfg_attr(not(feature = "flex"), expect(dead_code, reason = "burn-flex alone has a choice"))]
    pub(crate) execution: Execution,
    /// Made at the first forward pass, when the weights are there.
    #[cfg(feature = "flex")]
    pub(crate) prepared: std::sync::OnceLock<crate::prepared::Prepared>,
    /// Weights and bias of each convolution, likewise.
    #[cfg(feature = "cube")]
    pub(crate) on_gpu: std::sync::OnceLock<Vec<crate::plain::Weights<burn_cubecl::Cube>>>,
}

impl Chain {
    /// A chain on `device`, with weights of zero until a record is loaded.
    #[must_use]
    pub fn new(plan: Plan, device: &Device) -> Self {
        let weights = Param::from_tensor(Tensor::zeros([plan.weights_len()], device));
        let shared = Shared {
            plan,
            execution: execution::current(),
            #[cfg(feature = "flex")]
            prepared: std::sync::OnceLock::new(),
            #[cfg(feature = "cube")]
            on_gpu: std::sync::OnceLock::new(),
        };
        Self { weights, shared: Arc::new(shared) }
    }

    /// `[batch, channels, height, width]` to the same of the last step (`D` is 4), or to `[batch,
    /// channels]` if the steps flatten it (`D` is 2).
    ///
    /// # Panics
    /// When the input or the weights do not have the plan's shapes; model-import made both.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<4>) -> Tensor<D> {
        #[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
        {
            let (input, weights) = (input.into_dispatch(), self.weights.val().into_dispatch());
            Tensor::from_dispatch(crate::ops::run(input, weights, Arc::clone(&self.shared)))
        }
        #[cfg(not(any(feature = "flex", feature = "ndarray", feature = "cube")))]
        {
            drop(input);
            unreachable!("no backend is compiled in, so there is no tensor")
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
