//! A fuzz target that plans and decodes a HEIC or AVIF with `heif-picture`.
//!
//! preprocess catches a panic of the HEVC decoder and refuses the upload, so such a panic is no finding here. A panic
//! of the AV1 decoder aborts the process and is a finding. The tests of `heif-picture` replay the corpus on stable
//! Rust.
#![no_main]

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use heif_picture::Plan;
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Maximum number of pixels. The target ignores larger pictures, as callers of the crate do.
const MAX_PIXELS: u64 = 1 << 18;

/// Aborts unless the panic comes from a crate of the registry, because only the decoders of the pixels come from there.
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
        let usage_before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let Ok(plan) = Plan::read(bytes) else { return };
        assert!(ALLOCATOR.peak_usage() - usage_before < 2 << 20);
        let (width, height) = plan.size();
        if plan.coded_pixels() > MAX_PIXELS || u64::from(width) * u64::from(height) > MAX_PIXELS {
            return;
        }
        let mut colours = vec![0; plan.colour_bytes()];
        let mut alpha = vec![0; plan.alpha_bytes()];
        let usage_before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let _ = catch_unwind(AssertUnwindSafe(|| plan.decode(&mut colours, &mut alpha)));
        let used = (ALLOCATOR.peak_usage() - usage_before) as u64;
        assert!(used <= plan.decoder_bytes(), "used {used} bytes, but the plan states {}", plan.decoder_bytes());
    }
);
