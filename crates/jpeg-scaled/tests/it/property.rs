//! Every picture, at every scale, is near what the definitions say.

use jpeg_scaled::Scale;
use proptest::{prelude::*, test_runner::TestRunner};

use crate::{
    files::{Recipe, config, decode, recipes},
    naive,
};

/// Two roundings of brightness, and two of a colour difference, which counts up to 1.772 times.
const FARTHEST: f64 = 4.0;

fn farthest(recipe: &Recipe, scale: Scale) -> f64 {
    let file = recipe.encode();
    let (width, height, rgb) = decode(&file, scale).unwrap();
    let (wanted_width, wanted_height) = (scale.apply(recipe.width.into()), scale.apply(recipe.height.into()));
    assert_eq!((width, height), (wanted_width, wanted_height));
    let wanted = naive::decode(&file, scale.denominator() as usize);
    assert_eq!(rgb.len(), wanted.len());
    rgb.iter().zip(&wanted).map(|(&found, wanted)| (f64::from(found) - wanted).abs()).fold(0.0, f64::max)
}

#[test]
fn any_picture_is_near_its_definition() {
    TestRunner::new(config(400))
        .run(&recipes(), |recipe| {
            for scale in Scale::ALL {
                let farthest = farthest(&recipe, scale);
                prop_assert!(farthest <= FARTHEST, "{farthest} at {scale:?}");
            }
            Ok(())
        })
        .unwrap();
}
