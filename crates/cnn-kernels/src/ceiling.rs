//! Runs multiply-adds at the maximum speed of the CPU, for comparison in benchmarks.

use std::hint::black_box;

use crate::{
    isa::{Isa, SimdKernel},
    vector::Vector,
};

/// Number of accumulators, whose multiply-adds do not depend on each other.
///
/// Twelve hide a latency of six cycles on a CPU that starts two multiply-adds per cycle.
const ACCUMULATOR_COUNT: usize = 12;

/// Runs multiply-adds in registers and returns the number of floating-point operations.
///
/// Each of the `iterations` consists of 12 independent multiply-adds of whole vectors. The caller measures
/// the duration.
#[must_use]
pub fn run_multiply_adds(isa: Isa, iterations: usize) -> usize {
    // SAFETY: `MultiplyAdds` uses neither packed weights nor slices of the caller.
    unsafe { isa.run(MultiplyAdds { iterations }) };
    2 * iterations * ACCUMULATOR_COUNT * isa.lane_count()
}

/// Number of lanes in the widest vector of any instruction set.
const MAX_LANES: usize = 16;

struct MultiplyAdds {
    iterations: usize,
}

impl SimdKernel for MultiplyAdds {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut results = [0.0_f32; ACCUMULATOR_COUNT * MAX_LANES];
        // SAFETY: the caller guarantees that the CPU supports `V`. `results` has room for every accumulator,
        // because no vector has more than `MAX_LANES` lanes.
        unsafe {
            // `black_box` keeps the compiler from computing the results at compile time. With these
            // constants, the accumulators stay finite and never become subnormal. Subnormal numbers slow the
            // CPU down.
            let factor = V::splat(black_box(0.999_999_9));
            let addend = V::splat(black_box(1e-7));
            let mut accumulators = [addend; ACCUMULATOR_COUNT];
            for _ in 0..self.iterations {
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
