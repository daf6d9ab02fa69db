//! Buffers that a thread keeps from one job to the next.
//!
//! Fresh memory costs CPU time twice: each page causes a page fault on first use, and the system clears it.

use std::{cell::Cell, thread::LocalKey};

/// The buffers for one job.
pub trait Scratch: Default {
    /// Returns the number of bytes of all buffers.
    fn allocated_bytes(&self) -> usize;
}

/// Calls `work` with the buffers that this thread keeps in `kept`, or with new ones.
///
/// Keeps the buffers afterwards unless they have grown to more than `max_kept_bytes`. Drops the buffers if `work`
/// panics.
pub fn with_scratch<S: Scratch, R>(
    kept: &'static LocalKey<Cell<Option<S>>>,
    max_kept_bytes: usize,
    work: impl FnOnce(&mut S) -> R,
) -> R {
    let mut scratch = kept.take().unwrap_or_default();
    let result = work(&mut scratch);
    if scratch.allocated_bytes() <= max_kept_bytes {
        kept.set(Some(scratch));
    }
    result
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    impl Scratch for Vec<u8> {
        fn allocated_bytes(&self) -> usize {
            self.capacity()
        }
    }

    thread_local! {
        static KEPT: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
    }

    #[test]
    fn buffers_are_kept_up_to_the_limit_and_dropped_above_it_and_after_a_panic() {
        let capacity = || with_scratch(&KEPT, 1000, |buffer| buffer.capacity());
        assert_eq!(capacity(), 0);
        with_scratch(&KEPT, 1000, |buffer| buffer.reserve_exact(1000));
        assert_eq!(capacity(), 1000);
        with_scratch(&KEPT, 1000, |buffer| buffer.reserve_exact(1001));
        assert_eq!(capacity(), 0);
        with_scratch(&KEPT, 1000, |buffer| buffer.reserve_exact(1000));
        catch_unwind(|| with_scratch(&KEPT, 1000, |_| panic!("expected"))).unwrap_err();
        assert_eq!(capacity(), 0);
    }
}
