//! Colours of other spaces to sRGB, which is what classify takes every picture for.
//!
//! Phones write Display-P3: taken for sRGB, its colours are paler than they were. Converted when the
//! picture is small, which costs next to nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

/// Makes three bytes of sRGB of each pixel of `small`, whose colours are those of `profile`. A profile
/// that is broken, or is not one of light (matrix and curves, or a curve of grey), counts as sRGB.
pub(super) fn to_srgb(small: &mut Vec<u8>, grey: bool, profile: Option<&[u8]>) {
    // Profiles are strangers' bytes, too.
    let converted = catch_unwind(AssertUnwindSafe(|| converted(small, grey, profile?)));
    match converted {
        Ok(Some(converted)) => *small = converted,
        _ if grey => *small = small.iter().flat_map(|&level| [level; 3]).collect(),
        _ => {}
    }
}

fn converted(small: &[u8], grey: bool, profile: &[u8]) -> Option<Vec<u8>> {
    let profile = ColorProfile::new_from_slice(profile).ok()?;
    let layout = match profile.color_space {
        DataColorSpace::Rgb if !grey && profile.is_matrix_shaper() => Layout::Rgb,
        DataColorSpace::Gray if grey => Layout::Gray,
        _ => return None,
    };
    let srgb = ColorProfile::new_srgb();
    let transform =
        profile.create_transform_8bit(layout, &srgb, Layout::Rgb, TransformOptions::default()).ok()?;
    let mut converted = vec![0; small.len() / layout.channels() * 3];
    transform.transform(small, &mut converted).ok()?;
    Some(converted)
}
