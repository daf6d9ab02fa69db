//! Compares every kernel, on every instruction set of this machine, with a naive loop in `f64`.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod conv1x1;
mod depthwise;
mod first_conv;
mod inverted_residual;
mod naive;
mod pool;
mod support;

use cnn_kernels::Isa;

/// `KERNELS_WIDEST` is the name of the instruction set that must be detected.
///
/// Under an emulator that hides instructions from the detection, all other tests would pass without testing
/// those instructions.
#[test]
fn the_detected_instruction_set_is_the_required_one() {
    if let Ok(widest) = std::env::var("KERNELS_WIDEST") {
        assert_eq!(Isa::detect().name(), widest);
    }
}
