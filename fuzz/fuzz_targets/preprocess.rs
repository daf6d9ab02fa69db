//! An upload's whole way to a picture. The stable test `corpus` of preprocess does the same with the files
//! of the corpus.
//!
//! A panic of a decoder is caught by preprocess, and the upload refused; a panic anywhere else is a
//! finding. So is a plan that takes more memory than it says.
#![no_main]

use std::{panic::PanicHookInfo, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use preprocess::{
    Settings,
    image::{Limits, Outcome, Plan, Recipe, follow},
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Small pictures, so that there are many of them; made small enough that decoders scale down, too.
static RECIPE: LazyLock<Recipe> = LazyLock::new(|| {
    let usual = Settings::default().recipe();
    let limits = Limits { max_pixels: 1 << 18, kept_bytes: 1 << 20, ..usual.limits };
    Recipe { shorter_side: 32, limits, ..usual }
});

/// Lets panics through that start in a crate from the registry.
fn abort_on_our_panics(info: &PanicHookInfo<'_>) {
    let theirs = info.location().is_some_and(|location| location.file().contains("/registry/"));
    if !theirs {
        eprintln!("{info}");
        std::process::abort();
    }
}

fuzz_target!(
    init: std::panic::set_hook(Box::new(abort_on_our_panics)),
    |bytes: &[u8]| {
        let Ok(mut plan) = Plan::of(bytes, &RECIPE) else { return };
        loop {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let outcome = follow(&plan, bytes, &RECIPE);
            let taken = (MEMORY.peak_usage() - before) as u64;
            let promised = plan.cost().bytes;
            assert!(taken <= promised, "{} took {taken} bytes of {promised}", plan.decoder());
            match outcome {
                Ok(Outcome::Next(next)) => plan = *next,
                Ok(Outcome::Done(picture)) => {
                    assert!(picture.width >= 1 && picture.height >= 1);
                    assert!(picture.jpeg.starts_with(b"\xFF\xD8") && picture.jpeg.ends_with(b"\xFF\xD9"));
                    return;
                }
                Err(_) => return,
            }
        }
    }
);
