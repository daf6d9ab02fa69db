//! Runs multiply-adds at the maximum speed of the CPU, for comparison in benchmarks.

use std::hint::black_box;

use crate::{
    isa::{Isa, SimdKernel},
    vector::Vector,
};

/// Number of accumulators. Their multiply-adds do not depend on each other, and twelve are enough to hide the
/// latency of a multiply-add on any CPU.
const ACCUMULATORS: usize = 12;

/// Runs `rounds` rounds of multiply-adds in registers and returns the number of floating-point operations.
///
/// Each round is 12 independent multiply-adds of whole vectors. The caller measures the duration.
#[must_use]
pub fn multiply_adds(isa: Isa, rounds: usize) -> usize {
    // SAFETY: `MultiplyAdds` uses neither packed weights nor slices of the caller.
    unsafe { isa.run(MultiplyAdds { rounds }) };
    2 * rounds * ACCUMULATORS * isa.lanes()
}

/// Number of lanes in the widest vector of any instruction set.
const MAX_LANES: usize = 16;

struct MultiplyAdds {
    rounds: usize,
}

impl SimdKernel for MultiplyAdds {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut results = [0.0_f32; ACCUMULATORS * MAX_LANES];
        // SAFETY: the caller guarantees that the CPU supports `V`. `results` has room for every accumulator,
        // because no vector has more than `MAX_LANES` lanes.
        unsafe {
            // `black_box` keeps the compiler from computing the results itself. With these constants, the
            // accumulators stay finite and never become subnormal. Subnormal numbers slow the CPU down.
            let factor = V::splat(black_box(0.999_999_9));
            let addend = V::splat(black_box(1e-7));
            let mut accumulators = [addend; ACCUMULATORS];
            for _ in 0..self.rounds {
                for accumulator in &mut accumulators {
                    *accumulator = accumulator.mul_add(factor, addend);
                }
            }
            for (index, accumulator) in accumulators.iter().enumerate() {
                accumulator.store(results.as_mut_ptr().add(index * V::LANES));
            }
        }
        black_box(results);
    }
}
