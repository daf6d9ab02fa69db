//! Defines the burn operator that runs a chain, and implements it for each backend.
#![cfg_attr(
    feature = "ndarray",
    expect(deprecated, reason = "burn 0.22 deprecates burn-ndarray but still contains it")
)]

use std::sync::Arc;

use burn::backend::{Backend, Dispatch, DispatchTensor, backend_extension, tensor::FloatTensor};

use crate::{plain, state::ChainState};

/// The operator that runs a chain on a backend.
///
/// The default implementation calls the backend's own operators one after another.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube")
)]
pub(crate) trait ChainOps: Backend {
    /// Computes the chain's output for `input` of shape `[batch, channels, height, width]`.
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

/// Runs a chain on a GPU with burn's own operators, which burn can fuse.
///
/// Only the first forward pass splits the weights into one tensor per convolution, because splitting a tensor
/// on a GPU copies it.
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
                let pack_weights = || crate::cpu::CpuChain::from_tensor(isa, &state.plan, &weights);
                state.cpu_chain.get_or_init(pack_weights).run_tensor(&input)
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
