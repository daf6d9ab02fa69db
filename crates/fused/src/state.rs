//! Defines the state that all clones of a chain share.

use crate::execution::Execution;
use crate::plan::Plan;

/// Plan, requested execution and prepared weights of a chain.
#[derive(Debug)]
pub(crate) struct ChainState {
    #[cfg_attr(
        not(any(feature = "flex", feature = "ndarray", feature = "cube")),
        expect(dead_code, reason = "without a backend, no chain can run")
    )]
    pub(crate) plan: Plan,
    #[cfg_attr(not(feature = "flex"), expect(dead_code, reason = "only burn-flex has two implementations"))]
    pub(crate) execution: Execution,
    /// The chain with its weights packed for the CPU kernels. The first forward pass sets this field, because
    /// the weights are an argument of the forward pass.
    #[cfg(feature = "flex")]
    pub(crate) cpu_chain: std::sync::OnceLock<crate::cpu::CpuChain>,
    /// The weights as separate tensors on the GPU. The first forward pass sets this field, because the
    /// weights are an argument of the forward pass.
    #[cfg(feature = "cube")]
    pub(crate) gpu_weights: std::sync::OnceLock<crate::plain::ChainWeights<burn_cubecl::Cube>>,
}

impl ChainState {
    pub(crate) fn new(plan: Plan, execution: Execution) -> Self {
        Self {
            plan,
            execution,
            #[cfg(feature = "flex")]
            cpu_chain: std::sync::OnceLock::new(),
            #[cfg(feature = "cube")]
            gpu_weights: std::sync::OnceLock::new(),
        }
    }
}
