//! Defines helpers for the tests: random numbers, guarded memory, and proptest strategies for shapes.

use cnn_kernels::{Clamp, Pads, Size};
use proptest::{prelude::*, sample::select};

/// Returns a configuration with `default_cases` test cases, or with the number in `KERNELS_CASES`, which is
/// for runs under a slow emulator.
pub(crate) fn proptest_config(default_cases: u32) -> ProptestConfig {
    let cases = std::env::var("KERNELS_CASES").ok().and_then(|cases| cases.parse().ok());
    // proptest prints a failing case, so it need not be saved to a file.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases.unwrap_or(default_cases)) }
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
const GUARD: usize = 67;
/// Initial value of memory that must not be overwritten.
const UNTOUCHED: f32 = 12345.678;

/// Calls `write_output` with an output of `len` elements between guard elements, and returns the output.
/// Asserts that no guard element was overwritten.
pub(crate) fn run_guarded(len: usize, write_output: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut memory = vec![UNTOUCHED; GUARD + len + GUARD];
    write_output(&mut memory[GUARD..GUARD + len]);
    let intact = |guard: &[f32]| guard.iter().all(|value| value.to_bits() == UNTOUCHED.to_bits());
    assert!(intact(&memory[..GUARD]), "an element before the output was overwritten");
    assert!(intact(&memory[GUARD + len..]), "an element after the output was overwritten");
    memory[GUARD..GUARD + len].to_vec()
}

/// Asserts that the bits are equal, not only the numbers.
pub(crate) fn assert_same_bits(one: &[f32], other: &[f32], context: &str) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(one), bits(other), "{context}");
}

pub(crate) fn any_clamp() -> impl Strategy<Value = Clamp> {
    select(vec![Clamp::NONE, Clamp::RELU, Clamp::RELU6, Clamp { lo: -0.5, hi: 0.25 }])
}

pub(crate) fn any_size(largest: usize) -> impl Strategy<Value = Size> {
    (1..=largest, 1..=largest).prop_map(|(height, width)| Size { height, width })
}

pub(crate) fn any_pads(largest: usize) -> impl Strategy<Value = Pads> {
    let side = 0..=largest;
    (side.clone(), side.clone(), side.clone(), side).prop_map(|(top, left, bottom, right)| Pads {
        top,
        left,
        bottom,
        right,
    })
}
