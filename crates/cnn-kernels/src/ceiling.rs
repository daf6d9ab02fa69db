//! How fast this machine multiplies and adds: what the kernels are measured against.

use std::hint::black_box;

use crate::{
    isa::{Isa, Kernel},
    vector::Vector,
};

/// Chains of multiply-adds side by side: more than any CPU needs to keep its units busy.
const CHAINS: usize = 12;

/// Does nothing but multiply-adds in registers, `rounds` times a dozen vectors of them, and says how
/// many floating-point operations that was.
#[must_use]
pub fn multiply_adds(isa: Isa, rounds: usize) -> usize {
    // SAFETY: nothing is packed and nothing is read.
    unsafe { isa.run(MultiplyAdds { rounds }) };
    2 * rounds * CHAINS * isa.lanes()
}

struct MultiplyAdds {
    rounds: usize,
}

impl Kernel for MultiplyAdds {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut first_lanes = [0.0_f32; CHAINS * 16];
        // SAFETY: the CPU is the caller's promise, and there is room for a vector of each chain.
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
                chain.store(first_lanes.as_mut_ptr().add(index * V::LANES));
            }
        }
        black_box(first_lanes);
    }
}
