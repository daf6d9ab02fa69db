//! Every kernel on every instruction set of this machine against a naive loop in `f64`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod conv1x1;
mod depthwise;
mod first_conv;
mod inverted_residual;
mod naive;
mod pool;
mod rig;

use cnn_kernels::Isa;

/// A checker may hide instructions, and everything passes without them: `KERNELS_WIDEST` is the name of
/// those that must be there.
#[test]
fn the_widest_instructions_are_those_that_are_asked_for() {
    if let Ok(widest) = std::env::var("KERNELS_WIDEST") {
        assert_eq!(Isa::detect().name(), widest);
    }
}
