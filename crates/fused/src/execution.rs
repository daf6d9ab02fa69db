//! How chains are to run on a CPU.

use std::cell::Cell;

use cnn_kernels::Isa;

/// How a chain runs on burn-flex. Other backends have plain burn operators only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// By the CPU kernels, with these instructions.
    Kernels(Isa),
    /// By burn's own operators.
    Plain,
}

thread_local! {
    static EXECUTION: Cell<Option<Execution>> = const { Cell::new(None) };
}

/// Makes the chains that `load` loads run like this. Generated code loads a model without a word about
/// it, so it is said around the call; a chain keeps what it was loaded with. Without it a chain runs
/// by the kernels, with the best instructions that the CPU has.
pub fn load_with<T>(execution: Execution, load: impl FnOnce() -> T) -> T {
    struct Restore(Option<Execution>);
    impl Drop for Restore {
        fn drop(&mut self) {
            EXECUTION.set(self.0);
        }
    }
    let _restore = Restore(EXECUTION.replace(Some(execution)));
    load()
}

pub(crate) fn current() -> Execution {
    EXECUTION.get().unwrap_or_else(|| Execution::Kernels(Isa::detect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_the_call_and_no_longer() {
        let outside = current();
        assert_eq!(load_with(Execution::Plain, current), Execution::Plain);
        let inner = || load_with(Execution::Kernels(Isa::PORTABLE), current);
        assert_eq!(load_with(Execution::Plain, || (inner(), current())).1, Execution::Plain);
        let panics = || load_with(Execution::Plain, || std::panic::resume_unwind(Box::new(())));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(current(), outside);
    }
}
