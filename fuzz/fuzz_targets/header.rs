//! The header of an upload, and the plan that is made of it. The stable test `corpus` of preprocess does
//! the same with the files of the corpus.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use preprocess::{
    Settings,
    image::{Coding, Plan, Recipe},
};

static RECIPE: LazyLock<Recipe> = LazyLock::new(|| Settings::default().recipe());

fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = Plan::of(bytes, &RECIPE) else { return };
    let (header, cost, limits) = (plan.header(), plan.cost(), &RECIPE.limits);
    assert!(header.width >= 1 && header.height >= 1);
    assert!(header.width.max(header.height) <= limits.max_side);
    assert!(cost.pixels == header.pixels() && cost.pixels <= limits.max_pixels);
    assert!((1..=limits.max_bytes).contains(&cost.bytes));
    if let Coding::Jpeg(jpeg) = header.coding {
        assert!(jpeg.scans <= limits.max_scans && jpeg.whole);
    }
});
