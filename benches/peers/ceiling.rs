//! How fast this machine multiplies and adds, by the kernels' own measure.

use std::{sync::Barrier, thread, time::Instant};

use cnn_kernels::{Isa, ceiling};

use crate::figures::Series;

/// Some hundred microseconds of multiply-adds.
const MULTIPLY_ADDS: usize = 200_000;

/// GFLOP/s of a core, one figure a round.
#[derive(Default)]
pub(crate) struct Ceiling {
    alone: Series,
    both: Series,
}

impl Ceiling {
    pub(crate) fn isa() -> Isa {
        Isa::detect()
    }

    pub(crate) fn round(&mut self) {
        self.alone.add(gflops());
        let together = Barrier::new(2);
        let body = || {
            together.wait();
            gflops()
        };
        thread::scope(|scope| {
            let other = scope.spawn(body);
            self.both.add((body() + other.join().unwrap()) / 2.0);
        });
    }

    /// The most that one core reached, in GFLOP/s.
    pub(crate) fn alone(&self) -> f64 {
        self.alone.most()
    }

    /// The most that each of two cores reached at once, in GFLOP/s.
    pub(crate) fn both(&self) -> f64 {
        self.both.most()
    }
}

fn gflops() -> f64 {
    let start = Instant::now();
    let flops = ceiling::multiply_adds(Ceiling::isa(), MULTIPLY_ADDS);
    flops as f64 / start.elapsed().as_secs_f64() / 1e9
}
