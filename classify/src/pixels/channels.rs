//! Converts pixels to the channels of the network's input.

use resize::Channels;

use super::{ChannelOrder, Picture, geometry::centre_start};

/// Returns the luma of ITU-R BT.601, rounded as in Pillow's `convert("L")`.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    // The weights are 0.299, 0.587 and 0.114 in units of 1/65536.
    let sum = u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000;
    u8::try_from(sum >> 16).unwrap_or(u8::MAX)
}

/// Replaces RGB pixels by their luma, in place.
///
/// The tools that people train with convert an image to grey before they resize it. A picture with an ICC profile and
/// a picture in CMYK remain, because their colours are converted to sRGB after the resize.
pub(super) fn convert_to_grey_before_resize(picture: &mut Picture) {
    if picture.channels != Channels::Rgb || picture.icc_profile.is_some() {
        return;
    }
    let pixel_count = picture.pixels.length / 3;
    let bytes = &mut picture.pixels.buffer[..];
    for index in 0..pixel_count {
        let start = index * 3;
        bytes[index] = luma([bytes[start], bytes[start + 1], bytes[start + 2]]);
    }
    picture.pixels.length = pixel_count;
    picture.channels = Channels::Grey;
}

/// Converts sRGB pixels to the channels of the network's input.
pub(super) fn convert_rgb(mut rgb: Vec<u8>, order: ChannelOrder) -> Vec<u8> {
    match order {
        ChannelOrder::Rgb => {}
        ChannelOrder::Bgr => rgb.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| pixel.swap(0, 2)),
        ChannelOrder::Grey => rgb = rgb.as_chunks().0.iter().copied().map(luma).collect(),
    }
    rgb
}

/// Returns `content`, of the size `content_size`, at the centre of an image of the size `size` that has `colour`.
///
/// Sizes are width and height in pixels.
pub(super) fn pad(content: &[u8], content_size: (u32, u32), size: (u32, u32), colour: &[u8]) -> Vec<u8> {
    let start = |side: u32, content_side: u32| {
        usize::try_from(centre_start(side.into(), content_side)).unwrap_or(usize::MAX)
    };
    let (left, top) = (start(size.0, content_size.0), start(size.1, content_size.1));
    let (row_bytes, content_row_bytes) =
        (size.0 as usize * colour.len(), content_size.0 as usize * colour.len());
    let mut padded = colour.repeat(size.0 as usize * size.1 as usize);
    let rows = padded.chunks_exact_mut(row_bytes.max(1)).skip(top);
    for (row, content_row) in rows.zip(content.chunks_exact(content_row_bytes.max(1))) {
        row[left * colour.len()..][..content_row_bytes].copy_from_slice(content_row);
    }
    padded
}
