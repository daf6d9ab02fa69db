//! Colours of other spaces to sRGB, which is what classify takes every picture for.
//!
//! Phones write Display-P3: taken for sRGB, its colours are paler than they were. Converted when the
//! picture is small, which costs next to nothing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};

/// Makes sRGB of the colours of one profile. Making one takes longer than using it, and most pictures
/// have the profile of the one before.
pub(super) struct Converter {
    profile: Vec<u8>,
    grey: bool,
    /// Nothing where there is nothing to do: sRGB itself, and profiles that cannot be used.
    transform: Option<Arc<Transform8BitExecutor>>,
}

impl Converter {
    fn new(profile: &[u8], grey: bool) -> Self {
        Self { profile: profile.to_vec(), grey, transform: transform(profile, grey) }
    }

    /// Bytes it takes, about.
    pub(super) fn bytes(&self) -> usize {
        const CURVES: usize = 256 << 10;
        self.profile.capacity() + CURVES
    }
}

/// Makes three bytes of sRGB of each pixel of `small`, whose colours are those of `profile`. A profile
/// that is broken, or is not one of light (matrix and curves, or a curve of grey), counts as sRGB. `kept`
/// is the converter of the picture before, and of this one afterwards.
pub(super) fn to_srgb(small: &mut Vec<u8>, grey: bool, profile: Option<&[u8]>, kept: &mut Option<Converter>) {
    // Profiles are strangers' bytes, too.
    let converted = catch_unwind(AssertUnwindSafe(|| converted(small, grey, profile?, kept)));
    match converted {
        Ok(Some(converted)) => *small = converted,
        _ if grey => *small = small.iter().flat_map(|&level| [level; 3]).collect(),
        _ => {}
    }
}

fn converted(small: &[u8], grey: bool, profile: &[u8], kept: &mut Option<Converter>) -> Option<Vec<u8>> {
    let converter = match kept.take() {
        Some(kept) if kept.profile == profile && kept.grey == grey => kept,
        _ => Converter::new(profile, grey),
    };
    let transform = kept.insert(converter).transform.as_ref()?;
    let mut converted = vec![0; small.len() / layout(grey).channels() * 3];
    transform.transform(small, &mut converted).ok()?;
    Some(converted)
}

fn layout(grey: bool) -> Layout {
    if grey { Layout::Gray } else { Layout::Rgb }
}

fn transform(profile: &[u8], grey: bool) -> Option<Arc<Transform8BitExecutor>> {
    let profile = ColorProfile::new_from_slice(profile).ok()?;
    let usable = match profile.color_space {
        DataColorSpace::Rgb => !grey && profile.is_matrix_shaper(),
        DataColorSpace::Gray => grey,
        _ => false,
    };
    if !usable {
        return None;
    }
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions::default();
    let transform = profile.create_transform_8bit(layout(grey), &srgb, Layout::Rgb, options).ok()?;
    (grey || changes_colours(&*transform)).then_some(transform)
}

/// Whether any of some hundred colours changes by more than the last bit. Cameras that write sRGB say so
/// in profiles that differ from each other in the last digits.
fn changes_colours(transform: &Transform8BitExecutor) -> bool {
    let levels = || (0..=u8::MAX).step_by(51);
    let colours: Vec<u8> = levels()
        .flat_map(|red| levels().flat_map(move |green| levels().flat_map(move |blue| [red, green, blue])))
        .collect();
    let mut converted = vec![0; colours.len()];
    transform.transform(&colours, &mut converted).is_ok()
        && colours.iter().zip(&converted).any(|(before, after)| before.abs_diff(*after) > 1)
}
