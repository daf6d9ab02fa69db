//! Defines helpers for the tests: random numbers, guarded memory, and proptest strategies for shapes.

use cnn_kernels::{Clamp, Pads, Size};
use proptest::{prelude::*, sample::select};

/// Returns a configuration with `default_case_count` test cases. Under a slow emulator, the environment
/// variable `KERNELS_CASES` can set a lower number.
pub(crate) fn proptest_config(default_case_count: u32) -> ProptestConfig {
    let case_count = std::env::var("KERNELS_CASES").ok().and_then(|count| count.parse().ok());
    // proptest prints a failing case, so it need not be saved to a file.
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(case_count.unwrap_or(default_case_count))
    }
}

/// Returns pseudo-random numbers between -1 and 1 (xorshift).
pub(crate) fn random_numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bits = u16::try_from(state >> 48).unwrap();
        f32::from(bits) / 32768.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Number of guard elements before and after an output. It is larger than the number of lanes of any vector.
const GUARD_LEN: usize = 67;
/// Initial value of memory that must not be overwritten.
const UNTOUCHED: f32 = 12345.678;

/// Calls `write_output` with an output of `len` elements between guard elements, and returns the output.
/// Asserts that no guard element was overwritten.
pub(crate) fn run_guarded(len: usize, write_output: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut memory = vec![UNTOUCHED; GUARD_LEN + len + GUARD_LEN];
    write_output(&mut memory[GUARD_LEN..GUARD_LEN + len]);
    let intact = |guard: &[f32]| guard.iter().all(|value| value.to_bits() == UNTOUCHED.to_bits());
    assert!(intact(&memory[..GUARD_LEN]), "an element before the output was overwritten");
    assert!(intact(&memory[GUARD_LEN + len..]), "an element after the output was overwritten");
    memory[GUARD_LEN..GUARD_LEN + len].to_vec()
}

/// Asserts that the bits are equal, not only the numbers.
pub(crate) fn assert_same_bits(one: &[f32], other: &[f32], context: &str) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(one), bits(other), "{context}");
}

pub(crate) fn any_clamp() -> impl Strategy<Value = Clamp> {
    select(vec![Clamp::NONE, Clamp::RELU, Clamp::RELU6, Clamp { lo: -0.5, hi: 0.25 }])
}

pub(crate) fn any_size(max_side: usize) -> impl Strategy<Value = Size> {
    (1..=max_side, 1..=max_side).prop_map(|(height, width)| Size { height, width })
}

pub(crate) fn any_pads(max_pad: usize) -> impl Strategy<Value = Pads> {
    let pad = 0..=max_pad;
    (pad.clone(), pad.clone(), pad.clone(), pad).prop_map(|(top, left, bottom, right)| Pads {
        top,
        left,
        bottom,
        right,
    })
}
