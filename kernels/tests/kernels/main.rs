//! Every kernel on every instruction set of this machine against a naive loop in `f64`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod conv1x1;
mod depthwise;
mod first_conv;
mod inverted_residual;
mod naive;
mod pool;
mod rig;
