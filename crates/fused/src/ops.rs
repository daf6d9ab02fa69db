//! Defines a chain as an operator of burn's backends.
#![cfg_attr(
    feature = "ndarray",
    expect(deprecated, reason = "burn-ndarray is supported until burn removes it, which 0.22 has not")
)]

use std::sync::Arc;

use burn::backend::{Backend, Dispatch, DispatchTensor, backend_extension, tensor::FloatTensor};

use crate::{plain, state::ChainState};

/// The operator that a backend must offer to run a chain.
///
/// The default implementation runs a sequence of the backend's own operators.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube")
)]
pub(crate) trait ChainOps: Backend {
    /// Computes the chain's output for `input` `[batch, channels, height, width]`.
    fn chain(
        input: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        state: Arc<ChainState>,
    ) -> FloatTensor<Self> {
        plain::run::<Self>(&state.plan, input, &plain::split_weights::<Self>(&state.plan, weights))
    }
}

#[cfg(feature = "ndarray")]
impl ChainOps for burn::backend::NdArray {}

/// Runs a chain on a GPU with burn's own operators, so that burn can fuse them.
///
/// The weights are split only in the first forward pass. On a GPU, splitting a tensor copies its parts, and
/// each forward pass would copy them again.
#[cfg(feature = "cube")]
impl ChainOps for burn_cubecl::Cube {
    fn chain(
        input: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        state: Arc<ChainState>,
    ) -> FloatTensor<Self> {
        let weights = state.gpu_weights.get_or_init(|| plain::split_weights::<Self>(&state.plan, weights));
        plain::run::<Self>(&state.plan, input, weights)
    }
}

#[cfg(feature = "flex")]
impl ChainOps for burn::backend::Flex {
    fn chain(
        input: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        state: Arc<ChainState>,
    ) -> FloatTensor<Self> {
        match state.execution {
            crate::Execution::Kernels(isa) => {
                let prepare = || crate::cpu::CpuChain::from_tensor(isa, &state.plan, &weights);
                state.cpu.get_or_init(prepare).run_tensor(&input)
            }
            crate::Execution::Plain => {
                // The operators of burn-flex are slower on a view than on a contiguous tensor.
                let input = input.to_contiguous();
                plain::run::<Self>(&state.plan, input, &plain::split_weights::<Self>(&state.plan, weights))
            }
        }
    }
}

/// Runs a chain on the backend of its input.
pub(crate) fn run(input: DispatchTensor, weights: DispatchTensor, state: Arc<ChainState>) -> DispatchTensor {
    <Dispatch as ChainOps>::chain(input, weights, state)
}
