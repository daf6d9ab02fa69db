//! Tests of the feature `turbo`, which adds libjpeg-turbo to the decoders of JPEGs.

use jpeg_encoder::{ColorType, Encoder};
use preprocess::image::{PlanOutcome, ProcessingPlan, process, run_plan};

use crate::{
    support::read_sample,
    test_image::{COLOURS, assert_quarters, recipe, test_image},
};

#[test]
fn file_refused_by_one_decoder_is_passed_to_the_next_with_the_cost_of_that_decoder() {
    let mut file = Vec::new();
    let large = image::imageops::resize(&test_image(), 1600, 1200, image::imageops::FilterType::Nearest);
    Encoder::new(&mut file, 90).encode(large.as_raw(), 1600, 1200, ColorType::Rgb).unwrap();
    // Inserts zeros before the end marker. The first two decoders refuse such a file.
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
    // zune-jpeg decodes the image at full size, so the third plan states more memory than the first plan.
    assert!(third.cost().bytes > plan.cost().bytes + 4_000_000);
    assert!(matches!(run_plan(&third, &file, &recipe()).unwrap(), PlanOutcome::Done(_)));
    assert_quarters(&file, COLOURS, "JPEG with zeros before its end marker");

    // If only the last decoder exceeds the memory limit, the file is refused nevertheless.
    let mut recipe = recipe();
    recipe.limits.max_processing_bytes = plan.cost().bytes.max(second.cost().bytes);
    assert_eq!(process(&file, &recipe).unwrap_err().kind(), "too_much_memory");
}

#[test]
fn truncated_jpeg_with_an_end_marker_is_refused() {
    for progressive in [false, true] {
        let whole = {
            let photo = image::load_from_memory(&read_sample("chelsea.jpg")).unwrap().into_rgb8();
            let mut file = Vec::new();
            let mut encoder = Encoder::new(&mut file, 90);
            encoder.set_progressive(progressive);
            let side = |length: u32| u16::try_from(length).unwrap();
            let (width, height) = (side(photo.width()), side(photo.height()));
            encoder.encode(photo.as_raw(), width, height, ColorType::Rgb).unwrap();
            file
        };
        process(&whole, &recipe()).unwrap();
        for length in [whole.len() / 2, whole.len() * 9 / 10] {
            let truncated = [&whole[..length], &[0xFF, 0xD9]].concat();
            let kind = process(&truncated, &recipe()).unwrap_err().kind();
            assert_eq!(kind, "corrupt_image", "progressive: {progressive}, {length} bytes");
        }
    }
}
