//! A fuzz target that processes an upload. If a decoder refuses the upload, the next decoder is used.
//!
//! preprocess catches a panic of a decoder and refuses the upload. A panic anywhere else is a finding, and so
//! is an upload that needs more memory than the plan for its processing states. The test module
//! `hostile::corpus` of preprocess replays the corpus on stable Rust.
#![no_main]

use std::{panic::PanicHookInfo, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use preprocess::{
    Settings,
    image::{Limits, PlanOutcome, ProcessingPlan, Recipe, run_plan},
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Settings of the processing that accept only small images, so that many images are processed per second.
/// The target size is even smaller, so that decoders scale the images down.
static RECIPE: LazyLock<Recipe> = LazyLock::new(|| {
    let default = Settings::default().recipe();
    let limits = Limits { max_pixels: 1 << 18, max_kept_bytes: 1 << 20, ..default.limits };
    Recipe { shorter_side: 32, limits, ..default }
});

/// Aborts unless the panic comes from a crate of the registry, because only decoders come from there.
fn abort_on_own_panic(info: &PanicHookInfo<'_>) {
    let is_in_registry = info.location().is_some_and(|location| location.file().contains("/registry/"));
    if !is_in_registry {
        eprintln!("{info}");
        std::process::abort();
    }
}

fuzz_target!(
    init: std::panic::set_hook(Box::new(abort_on_own_panic)),
    |bytes: &[u8]| {
        let Ok(mut plan) = ProcessingPlan::new(bytes, &RECIPE) else { return };
        loop {
            let usage_before = ALLOCATOR.current_usage();
            ALLOCATOR.reset_peak_usage();
            let outcome = run_plan(&plan, bytes, &RECIPE);
            let used = (ALLOCATOR.peak_usage() - usage_before) as u64;
            let stated = plan.cost().bytes;
            let decoder = plan.decoder_name();
            assert!(used <= stated, "{decoder} used {used} bytes, but its plan states {stated}");
            match outcome {
                Ok(PlanOutcome::TryNext(next)) => plan = *next,
                Ok(PlanOutcome::Done(processed)) => {
                    assert!(processed.width >= 1 && processed.height >= 1);
                    assert!(processed.jpeg.starts_with(b"\xFF\xD8") && processed.jpeg.ends_with(b"\xFF\xD9"));
                    return;
                }
                Err(_) => return,
            }
        }
    }
);
