//! What only libjpeg-turbo does, and what it leaves to the decoders in Rust.

use jpeg_encoder::{ColorType, Encoder};
use preprocess::image::{Outcome, Plan, follow, process};

use crate::{
    pictures::{COLOURS, assert_quarters, picture, recipe},
    support::sample,
};

#[test]
fn what_one_decoder_refuses_goes_to_the_next_at_its_cost() {
    let mut file = Vec::new();
    let large = image::imageops::resize(&picture(), 1600, 1200, image::imageops::FilterType::Nearest);
    Encoder::new(&mut file, 90).encode(large.as_raw(), 1600, 1200, ColorType::Rgb).unwrap();
    let end = file.len() - 2;
    file.splice(end..end, [0; 40]);

    let plan = Plan::of(&file, &recipe()).unwrap();
    assert_eq!(plan.decoder(), "jpeg-scaled");
    let next = |plan: &Plan| match follow(plan, &file, &recipe()).unwrap() {
        Outcome::Next(next) => *next,
        Outcome::Done(_) => panic!("{} said nothing", plan.decoder()),
    };
    let second = next(&plan);
    assert_eq!(second.decoder(), "libjpeg-turbo");
    let next = next(&second);
    assert_eq!(next.decoder(), "zune-jpeg");
    assert!(next.cost().bytes > plan.cost().bytes + 4_000_000);
    assert!(matches!(follow(&next, &file, &recipe()).unwrap(), Outcome::Done(_)));
    assert_quarters(&file, COLOURS, "with zeros before its end");

    // There is not always memory for that.
    let mut recipe = recipe();
    recipe.limits.max_bytes = plan.cost().bytes.max(second.cost().bytes);
    assert_eq!(process(&file, &recipe).unwrap_err().kind(), "too_much_memory");
}

#[test]
fn what_was_cut_off_is_refused_although_it_has_an_end() {
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
