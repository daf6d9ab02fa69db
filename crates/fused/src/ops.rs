//! The chain as an operator of burn's backends.
#![cfg_attr(
    feature = "ndarray",
    expect(deprecated, reason = "burn-ndarray is kept for as long as burn 0.22 is")
)]

use std::sync::Arc;

use burn::backend::{Backend, Dispatch, DispatchTensor, backend_extension, tensor::FloatTensor};

use crate::{chain::Shared, plain};

/// What a backend has to offer for a chain: by default its own operators, one after another.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube")
)]
pub(crate) trait ChainOps: Backend {
    /// The chain's output for `input` `[batch, channels, height, width]`.
    fn chain(input: FloatTensor<Self>, weights: FloatTensor<Self>, shared: Arc<Shared>) -> FloatTensor<Self> {
        plain::run::<Self>(&shared.plan, input, &plain::split::<Self>(&shared.plan, weights))
    }
}

#[cfg(feature = "ndarray")]
impl ChainOps for burn::backend::NdArray {}

/// Every GPU, by burn's own operators, each of which its fusion sees. The weights are cut up once: on a
/// CPU a part of a tensor is a view, but here it would be a copy in each forward pass.
#[cfg(feature = "cube")]
impl ChainOps for burn_cubecl::Cube {
    fn chain(input: FloatTensor<Self>, weights: FloatTensor<Self>, shared: Arc<Shared>) -> FloatTensor<Self> {
        let weights = shared.on_gpu.get_or_init(|| plain::split::<Self>(&shared.plan, weights));
        plain::run::<Self>(&shared.plan, input, weights)
    }
}

#[cfg(feature = "flex")]
impl ChainOps for burn::backend::Flex {
    fn chain(input: FloatTensor<Self>, weights: FloatTensor<Self>, shared: Arc<Shared>) -> FloatTensor<Self> {
        match shared.execution {
            crate::Execution::Kernels(isa) => {
                let prepare = || crate::prepared::Prepared::of_tensor(isa, &shared.plan, &weights);
                shared.prepared.get_or_init(prepare).run_tensor(&input)
            }
            crate::Execution::Plain => {
                // burn-flex is slower on a view.
                let input = input.to_contiguous();
                plain::run::<Self>(&shared.plan, input, &plain::split::<Self>(&shared.plan, weights))
            }
        }
    }
}

pub(crate) fn run(input: DispatchTensor, weights: DispatchTensor, shared: Arc<Shared>) -> DispatchTensor {
    <Dispatch as ChainOps>::chain(input, weights, shared)
}
