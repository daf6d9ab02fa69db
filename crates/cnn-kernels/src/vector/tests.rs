//! What the trait says, for every instruction set of this machine, bit by bit.

use std::array::from_fn;

use super::Vector;
use crate::isa::{Isa, Kernel};

/// Twice the lanes of the widest vector: a vector, and what lies behind it.
const LEN: usize = 32;
const UNTOUCHED: f32 = 12345.678;

const SPECIAL: [f32; 8] = [0.0, -0.0, 1.0, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e-39];

/// Arrays in whose first lane, and so in those of any vector, every two of `SPECIAL` meet.
fn pairs() -> impl Iterator<Item = ([f32; LEN], [f32; LEN])> {
    let from = |start: usize| from_fn(|lane| SPECIAL[(start + lane) % SPECIAL.len()]);
    let starts = || 0..SPECIAL.len();
    starts().flat_map(move |one| starts().map(move |other| (from(one), from(other))))
}

/// The lanes of `vector`, and nothing behind them.
///
/// # Safety
/// The CPU has the instructions of `V`.
unsafe fn lanes<V: Vector>(vector: V) -> Vec<f32> {
    let mut lanes = [UNTOUCHED; LEN];
    // SAFETY: the caller's promise, and no vector has as many lanes.
    unsafe { vector.store(lanes.as_mut_ptr()) };
    assert!(lanes[V::LANES..].iter().all(|lane| lane.to_bits() == UNTOUCHED.to_bits()), "stored too much");
    lanes[..V::LANES].to_vec()
}

/// The same bits; NaN is NaN, whatever its payload.
#[track_caller]
fn assert_lanes(actual: &[f32], expected: impl Iterator<Item = f32>) {
    let bits = |value: f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
    let expected: Vec<_> = expected.take(actual.len()).collect();
    let same = actual.iter().zip(&expected).all(|(actual, expected)| bits(*actual) == bits(*expected));
    assert!(same && actual.len() == expected.len(), "{actual:?} instead of {expected:?}");
}

/// `max` and `min` choose as the trait says, NaN and the signs of zero included.
struct Choices;

impl Kernel for Choices {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for (one, other) in pairs() {
            let both = || one.into_iter().zip(other);
            // SAFETY: the caller's promise, and no vector has as many lanes as the arrays.
            unsafe {
                let (one, other) = (V::load(one.as_ptr()), V::load(other.as_ptr()));
                assert_lanes(&lanes(one.max(other)), both().map(|(a, b)| if a > b { a } else { b }));
                assert_lanes(&lanes(one.min(other)), both().map(|(a, b)| if a < b { a } else { b }));
            }
        }
    }
}

/// Sums and products of numbers that need no rounding, so that a fused multiply-add is the same.
struct Arithmetic;

impl Kernel for Arithmetic {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (a, b, c): ([f32; LEN], [f32; LEN], [f32; LEN]) =
            (number_array(1.0), number_array(-0.5), number_array(7.0));
        let all = || a.into_iter().zip(b).zip(c);
        // SAFETY: the caller's promise, and no vector has as many lanes as the arrays.
        unsafe {
            let [a, b, c] = [&a, &b, &c].map(|array| V::load(array.as_ptr()));
            assert_lanes(&lanes(a.add(b)), all().map(|((a, b), _)| a + b));
            assert_lanes(&lanes(a.mul(b)), all().map(|((a, b), _)| a * b));
            assert_lanes(&lanes(a.mul_add(b, c)), all().map(|((a, b), c)| a * b + c));
            assert_lanes(&lanes(V::splat(-2.5)), std::iter::repeat(-2.5));
            assert_lanes(&lanes(a.half()), all().map(|((a, _), _)| a));
        }
    }
}

/// Different small numbers that start with `first`.
fn number_array(first: f32) -> [f32; LEN] {
    let mut next = first;
    from_fn(|_| {
        next += 1.0;
        next - 1.0
    })
}

/// Loads and stores of a part touch nothing else: the part is the end of its memory.
struct Parts;

impl Kernel for Parts {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for count in 0..V::LANES {
            let source = number_array(1.0)[..count].to_vec();
            // SAFETY: the caller's promise; `count` lanes are readable and writable.
            unsafe {
                let part = V::load_first(source.as_ptr(), count);
                assert_lanes(&lanes(part), source.iter().copied().chain(std::iter::repeat(0.0)));

                let all = number_array(1.0);
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

/// Runs a check on every instruction set of this machine.
fn on_all<K: Kernel>(check: impl Fn() -> K) {
    for isa in Isa::available() {
        // SAFETY: nothing is packed, and the checks see to their memory.
        unsafe { isa.run(check()) };
    }
}

#[test]
fn the_second_is_chosen_unless_the_first_is_truly_more_or_less() {
    on_all(|| Choices);
}

#[test]
fn sums_and_products_are_those_of_the_lanes() {
    on_all(|| Arithmetic);
}

#[test]
fn parts_of_a_vector_touch_nothing_else() {
    on_all(|| Parts);
}
