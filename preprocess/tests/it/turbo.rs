//! Tests of the feature `turbo`, which adds libjpeg-turbo to the decoders.

use jpeg_encoder::{ColorType, Encoder};
use preprocess::image::{PlanOutcome, ProcessingPlan, process, run_plan};

use crate::{
    support::sample,
    test_image::{COLOURS, assert_quarters, recipe, test_image},
};

#[test]
fn file_refused_by_a_decoder_goes_to_the_next_at_its_own_cost() {
    let mut file = Vec::new();
    let large = image::imageops::resize(&test_image(), 1600, 1200, image::imageops::FilterType::Nearest);
    Encoder::new(&mut file, 90).encode(large.as_raw(), 1600, 1200, ColorType::Rgb).unwrap();
    let end = file.len() - 2;
    file.splice(end..end, [0; 40]);

    let plan = ProcessingPlan::new(&file, &recipe()).unwrap();
    assert_eq!(plan.decoder_name(), "jpeg-scaled");
    let next_plan = |plan: &ProcessingPlan| match run_plan(plan, &file, &recipe()).unwrap() {
        PlanOutcome::TryNext(next) => *next,
        PlanOutcome::Done(_) => panic!("{} did not refuse the file", plan.decoder_name()),
    };
    let second = next_plan(&plan);
    assert_eq!(second.decoder_name(), "libjpeg-turbo");
    let third = next_plan(&second);
    assert_eq!(third.decoder_name(), "zune-jpeg");
    assert!(third.cost().bytes > plan.cost().bytes + 4_000_000);
    assert!(matches!(run_plan(&third, &file, &recipe()).unwrap(), PlanOutcome::Done(_)));
    assert_quarters(&file, COLOURS, "with zeros before its end");

    // Without memory for the last decoder, the file is refused.
    let mut recipe = recipe();
    recipe.limits.max_bytes = plan.cost().bytes.max(second.cost().bytes);
    assert_eq!(process(&file, &recipe).unwrap_err().kind(), "too_much_memory");
}

#[test]
fn cut_off_jpeg_with_an_end_marker_is_refused() {
    for progressive in [false, true] {
        let whole = {
            let photo = image::load_from_memory(&sample("chelsea.jpg")).unwrap().into_rgb8();
            let mut file = Vec::new();
            let mut encoder = Encoder::new(&mut file, 90);
            encoder.set_progressive(progressive);
            let side = |length: u32| u16::try_from(length).unwrap();
            let (width, height) = (side(photo.width()), side(photo.height()));
            encoder.encode(photo.as_raw(), width, height, ColorType::Rgb).unwrap();
            file
        };
        process(&whole, &recipe()).unwrap();
        for part in [whole.len() / 2, whole.len() * 9 / 10] {
            let cut = [&whole[..part], &[0xFF, 0xD9]].concat();
            let kind = process(&cut, &recipe()).unwrap_err().kind();
            assert_eq!(kind, "corrupt_image", "progressive: {progressive}, {part} bytes");
        }
    }
}
