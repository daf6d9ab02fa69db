//! Checks that the vectors of every available instruction set fulfil the contract of [`Vector`] bit for bit.

use std::array::from_fn;

use super::Vector;
use crate::isa::{Isa, SimdKernel};

/// Number of elements of the test arrays, which is twice the number of lanes in the widest vector.
const LEN: usize = 32;
/// Initial value of memory that must not be overwritten.
const UNTOUCHED: f32 = 12345.678;

const SPECIAL_VALUES: [f32; 8] = [0.0, -0.0, 1.0, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e-39];

/// Returns pairs of arrays. Every pair of `SPECIAL_VALUES` occurs in the first lanes of some pair of arrays.
fn array_pairs() -> impl Iterator<Item = ([f32; LEN], [f32; LEN])> {
    let array_from = |start: usize| from_fn(|lane| SPECIAL_VALUES[(start + lane) % SPECIAL_VALUES.len()]);
    let starts = || 0..SPECIAL_VALUES.len();
    starts().flat_map(move |a| starts().map(move |b| (array_from(a), array_from(b))))
}

/// Stores `vector` and returns its lanes. Asserts that the store does not write after the last lane.
///
/// # Safety
/// The CPU supports the instructions of `V`.
unsafe fn stored_lanes<V: Vector>(vector: V) -> Vec<f32> {
    let mut lanes = [UNTOUCHED; LEN];
    // SAFETY: the caller guarantees that the CPU supports `V`. The array has more elements than any vector
    // has lanes.
    unsafe { vector.store(lanes.as_mut_ptr()) };
    assert!(
        lanes[V::LANES..].iter().all(|lane| lane.to_bits() == UNTOUCHED.to_bits()),
        "the store wrote after the last lane"
    );
    lanes[..V::LANES].to_vec()
}

/// Asserts that the lanes have the expected bits. All NaN values are considered equal.
#[track_caller]
fn assert_lanes(actual: &[f32], expected: impl Iterator<Item = f32>) {
    let bits = |value: f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
    let expected: Vec<_> = expected.take(actual.len()).collect();
    let same = actual.iter().zip(&expected).all(|(actual, expected)| bits(*actual) == bits(*expected));
    assert!(same && actual.len() == expected.len(), "{actual:?} instead of {expected:?}");
}

/// Checks `max` and `min`, including NaN and the signs of zero.
struct CheckMaxAndMin;

impl SimdKernel for CheckMaxAndMin {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for (a, b) in array_pairs() {
            let lane_pairs = || a.into_iter().zip(b);
            // SAFETY: the caller guarantees that the CPU supports `V`. The arrays have more elements than any
            // vector has lanes.
            unsafe {
                let (a, b) = (V::load(a.as_ptr()), V::load(b.as_ptr()));
                assert_lanes(&stored_lanes(a.max(b)), lane_pairs().map(|(a, b)| if a > b { a } else { b }));
                assert_lanes(&stored_lanes(a.min(b)), lane_pairs().map(|(a, b)| if a < b { a } else { b }));
            }
        }
    }
}

/// Checks sums and products. No result needs rounding, so a fused multiply-add gives the same result as a
/// separate multiplication and addition.
struct CheckArithmetic;

impl SimdKernel for CheckArithmetic {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (a, b, c): ([f32; LEN], [f32; LEN], [f32; LEN]) =
            (consecutive_numbers(1.0), consecutive_numbers(-0.5), consecutive_numbers(7.0));
        let lane_triples = || a.into_iter().zip(b).zip(c);
        // SAFETY: the caller guarantees that the CPU supports `V`. The arrays have more elements than any
        // vector has lanes.
        unsafe {
            let [a, b, c] = [&a, &b, &c].map(|array| V::load(array.as_ptr()));
            assert_lanes(&stored_lanes(a.add(b)), lane_triples().map(|((a, b), _)| a + b));
            assert_lanes(&stored_lanes(a.mul(b)), lane_triples().map(|((a, b), _)| a * b));
            assert_lanes(&stored_lanes(a.mul_add(b, c)), lane_triples().map(|((a, b), c)| a * b + c));
            assert_lanes(&stored_lanes(V::splat(-2.5)), std::iter::repeat(-2.5));
            assert_lanes(&stored_lanes(a.half()), lane_triples().map(|((a, _), _)| a));
        }
    }
}

/// Returns consecutive numbers that start with `first`.
fn consecutive_numbers(first: f32) -> [f32; LEN] {
    let mut next = first;
    from_fn(|_| {
        next += 1.0;
        next - 1.0
    })
}

/// Checks that partial loads and stores access only the requested lanes, even at the end of an allocation.
struct CheckPartialAccess;

impl SimdKernel for CheckPartialAccess {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for count in 0..V::LANES {
            let source = consecutive_numbers(1.0)[..count].to_vec();
            // SAFETY: the caller guarantees that the CPU supports `V`. `source` has `count` elements, and
            // both targets have at least as many.
            unsafe {
                let part = V::load_first(source.as_ptr(), count);
                assert_lanes(&stored_lanes(part), source.iter().copied().chain(std::iter::repeat(0.0)));

                let all = consecutive_numbers(1.0);
                let mut target = [UNTOUCHED; LEN];
                V::load(all.as_ptr()).store_first(target.as_mut_ptr(), count);
                let expected = source.iter().copied().chain(std::iter::repeat(UNTOUCHED));
                assert_lanes(&target, expected);

                let mut target = vec![UNTOUCHED; count];
                V::load(all.as_ptr()).store_first(target.as_mut_ptr(), count);
                assert_lanes(&target, source.iter().copied());
            }
        }
    }
}

/// Runs a check with every instruction set of this machine.
fn check_all<K: SimdKernel>(check: impl Fn() -> K) {
    for isa in Isa::available() {
        // SAFETY: the checks use no packed weights, and access only their own arrays.
        unsafe { isa.run(check()) };
    }
}

#[test]
fn max_and_min_return_the_second_operand_unless_the_first_is_greater_or_less() {
    check_all(|| CheckMaxAndMin);
}

#[test]
fn sums_and_products_are_computed_per_lane() {
    check_all(|| CheckArithmetic);
}

#[test]
fn partial_loads_and_stores_access_only_the_requested_lanes() {
    check_all(|| CheckPartialAccess);
}
