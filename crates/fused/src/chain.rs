//! The burn module.

use std::sync::Arc;

use burn::{module::Module, tensor::Tensor};

use crate::{
    execution::{self, Execution},
    plan::Plan,
};

/// A chain of fused steps, as generated code holds it. Its weights are a constant of the network beside
/// it: burn-onnx makes one of them in any case.
#[derive(Module, Debug)]
pub struct Chain {
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
    pub(crate) on_gpu: std::sync::OnceLock<crate::plain::AllWeights<burn_cubecl::Cube>>,
}

impl Chain {
    /// A chain that runs as [`load_with`](crate::load_with) around this call says.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let shared = Shared {
            plan,
            execution: execution::current(),
            #[cfg(feature = "flex")]
            prepared: std::sync::OnceLock::new(),
            #[cfg(feature = "cube")]
            on_gpu: std::sync::OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// `[batch, channels, height, width]` to the same of the last step (`D` is 4), or to `[batch,
    /// channels]` if the steps flatten it (`D` is 2). An input whose memory is `[batch, height, width,
    /// channels]` (a permuted view) saves the kernels the way there.
    ///
    /// `weights` are what is added to each channel, if the plan says so, then weights and bias of each
    /// convolution in the order of the steps. They are the same at every call: the kernels have them in
    /// an order of their own from the first call on.
    ///
    /// # Panics
    /// When the input or the weights do not have the plan's shapes; model-import made both.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<4>, weights: Tensor<1>) -> Tensor<D> {
        #[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
        {
            let (input, weights) = (input.into_dispatch(), weights.into_dispatch());
            Tensor::from_dispatch(crate::ops::run(input, weights, Arc::clone(&self.shared)))
        }
        #[cfg(not(any(feature = "flex", feature = "ndarray", feature = "cube")))]
        {
            drop((input, weights));
            unreachable!("no backend is compiled in, so there is no tensor")
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
