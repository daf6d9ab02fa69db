//! A fuzz target that reads the header of an upload and plans the processing of the upload.
//!
//! The test module `hostile::corpus` of preprocess replays the corpus on stable Rust.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use preprocess::{
    Settings,
    image::{Coding, ProcessingPlan, Recipe},
};

/// The default settings of the processing.
static RECIPE: LazyLock<Recipe> = LazyLock::new(|| Settings::default().recipe());

fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = ProcessingPlan::new(bytes, &RECIPE) else { return };
    let (header, cost, limits) = (plan.header(), plan.cost(), &RECIPE.limits);
    assert!(header.width >= 1 && header.height >= 1);
    assert!(header.width.max(header.height) <= limits.max_side);
    assert!(cost.pixels == header.pixel_count() && cost.pixels <= limits.max_pixels);
    assert!((1..=limits.max_processing_bytes).contains(&cost.bytes));
    if let Coding::Jpeg(jpeg) = header.coding {
        assert!(jpeg.scan_count <= limits.max_scans && jpeg.is_complete);
    }
});
