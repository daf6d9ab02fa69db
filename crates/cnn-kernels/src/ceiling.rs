//! Runs multiply-adds at the maximum speed of this machine, for comparison in benchmarks.

use std::hint::black_box;

use crate::{
    isa::{Isa, Kernel},
    vector::Vector,
};

/// Number of independent chains of multiply-adds, which is enough to hide their latency on any CPU.
const CHAINS: usize = 12;

/// Runs `rounds` rounds of multiply-adds in registers and returns the number of floating-point operations.
///
/// Each round is 12 independent multiply-adds of whole vectors. The caller measures the time.
#[must_use]
pub fn multiply_adds(isa: Isa, rounds: usize) -> usize {
    // SAFETY: `MultiplyAdds` uses neither packed data nor slices of the caller.
    unsafe { isa.run(MultiplyAdds { rounds }) };
    2 * rounds * CHAINS * isa.lanes()
}

/// Number of lanes in the widest vector.
const MAX_LANES: usize = 16;

struct MultiplyAdds {
    rounds: usize,
}

impl Kernel for MultiplyAdds {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut results = [0.0_f32; CHAINS * MAX_LANES];
        // SAFETY: the caller guarantees that the CPU supports `V`. `results` has room for a vector of each
        // chain, because no vector has more than `MAX_LANES` lanes.
        unsafe {
            let factor = V::splat(black_box(0.999_999_9));
            let addend = V::splat(black_box(1e-7));
            let mut chains = [addend; CHAINS];
            for _ in 0..self.rounds {
                for chain in &mut chains {
                    *chain = chain.mul_add(factor, addend);
                }
            }
            for (index, chain) in chains.iter().enumerate() {
                chain.store(results.as_mut_ptr().add(index * V::LANES));
            }
        }
        black_box(results);
    }
}
