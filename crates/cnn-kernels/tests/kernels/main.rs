//! Compares the operators, on every instruction set of this machine, with naive loops in `f64`.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod conv1x1;
mod depthwise;
mod first_conv;
mod inverted_residual;
mod naive;
mod pool;
mod support;

use cnn_kernels::Isa;

/// Checks that the detected instruction set is the one that `KERNELS_WIDEST` names.
///
/// The other tests skip an instruction set that is not detected. Without this test, they would pass under an
/// emulator that does not report the instruction set to be tested.
#[test]
fn detected_instruction_set_is_the_required_one() {
    if let Ok(widest) = std::env::var("KERNELS_WIDEST") {
        assert_eq!(Isa::detect().name(), widest);
    }
}
