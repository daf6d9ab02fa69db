//! The chain as an operator of burn's backends.
#![cfg_attr(
    feature = "ndarray",
    expect(deprecated, reason = "burn-ndarray is kept for as long as burn 0.22 is")
)]

use std::sync::Arc;

use burn::backend::{Backend, Dispatch, DispatchTensor, backend_extension, tensor::FloatTensor};

use crate::{chain::Shared, plain};

/// What a backend has to offer for a chain: by default its own operators, one after another.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"))]
pub(crate) trait ChainOps: Backend {
    /// The chain's output for `input` `[batch, channels, height, width]`.
    fn chain(input: FloatTensor<Self>, weights: FloatTensor<Self>, shared: Arc<Shared>) -> FloatTensor<Self> {
        plain::run::<Self>(&shared.plan, input, weights)
    }
}

#[cfg(feature = "ndarray")]
impl ChainOps for burn::backend::NdArray {}

#[cfg(feature = "flex")]
impl ChainOps for burn::backend::Flex {
    fn chain(input: FloatTensor<Self>, weights: FloatTensor<Self>, shared: Arc<Shared>) -> FloatTensor<Self> {
        match shared.execution {
            crate::Execution::Kernels(isa) => {
                let prepare = || crate::prepared::Prepared::of_tensor(isa, &shared.plan, &weights);
                shared.prepared.get_or_init(prepare).run_tensor(&input)
            }
            crate::Execution::Plain => plain::run::<Self>(&shared.plan, input, weights),
        }
    }
}

pub(crate) fn run(input: DispatchTensor, weights: DispatchTensor, shared: Arc<Shared>) -> DispatchTensor {
    <Dispatch as ChainOps>::chain(input, weights, shared)
}
