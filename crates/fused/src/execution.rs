//! Chooses between the CPU kernels and burn's own operators.

use std::cell::Cell;

use cnn_kernels::Isa;

/// The implementation that a chain uses on burn-flex. On other backends, a chain always uses burn's own
/// operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// The CPU kernels, with this instruction set.
    Kernels(Isa),
    /// Burn's own operators.
    Plain,
}

thread_local! {
    static EXECUTION: Cell<Option<Execution>> = const { Cell::new(None) };
}

/// Calls `load` and returns its result. Chains that `load` creates use `execution`.
///
/// The constructors of generated code have no parameter for this setting, so it is passed through a
/// thread-local variable. A chain keeps the setting with which it was created. A chain that is created
/// outside of `load_with` uses the CPU kernels with the widest instruction set that the CPU supports.
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

/// Returns the argument of the innermost [`load_with`] that is running on this thread, or the default.
pub(crate) fn current() -> Execution {
    EXECUTION.get().unwrap_or_else(|| Execution::Kernels(Isa::detect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_with_applies_only_during_the_call_even_if_it_panics() {
        let outside = current();
        assert_eq!(load_with(Execution::Plain, current), Execution::Plain);
        let inner = || load_with(Execution::Kernels(Isa::PORTABLE), current);
        assert_eq!(load_with(Execution::Plain, || (inner(), current())).1, Execution::Plain);
        let panics = || load_with(Execution::Plain, || std::panic::resume_unwind(Box::new(())));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(current(), outside);
    }
}
