//! The colours of a JPEG: its channels and inks, and its ICC profile.

use jpeg_scaled::{ColourSpace, Segments};
use resize::Channels;

use crate::{MAX_PROFILE_BYTES, cmyk::ycbcr_to_rgb};

/// Returns the channels of a pixel that jpeg-scaled decodes.
pub fn jpeg_channels(colour_space: ColourSpace) -> Channels {
    match colour_space {
        ColourSpace::Grey => Channels::Grey,
        ColourSpace::YCbCr | ColourSpace::Rgb => Channels::Rgb,
        ColourSpace::Cmyk | ColourSpace::Ycck => Channels::Cmyk,
    }
}

/// Converts the samples of a JPEG in CMYK or YCCK to amounts of ink, of which 0 means none. Leaves grey and RGB
/// unchanged.
///
/// Every JPEG is taken to have inverted samples, as Adobe writes them. Browsers do the same, because files with
/// samples that are not inverted are very rare and cannot be recognised.
pub fn convert_jpeg_samples_to_inks(samples: &mut [u8], colour_space: ColourSpace) {
    match colour_space {
        ColourSpace::Grey | ColourSpace::YCbCr | ColourSpace::Rgb => {}
        ColourSpace::Cmyk => {
            for pixel in samples.as_chunks_mut::<4>().0 {
                *pixel = pixel.map(|sample| u8::MAX - sample);
            }
        }
        // The conversion from YCCK to CMYK inverts the colours, and Adobe's samples are inverted once more.
        ColourSpace::Ycck => {
            for [cyan, magenta, yellow, black] in samples.as_chunks_mut().0 {
                [*cyan, *magenta, *yellow] = ycbcr_to_rgb([*cyan, *magenta, *yellow]);
                *black = u8::MAX - *black;
            }
        }
    }
}

/// Reads the profile of a JPEG from the segments before the first scan. A long profile consists of several parts.
///
/// Returns `None` if a part is missing, or if the profile is too long.
pub fn read_jpeg_profile(file: &[u8]) -> Option<Vec<u8>> {
    join_jpeg_parts(jpeg_parts(file))
}

/// Returns the maximum length of the profile that [`read_jpeg_profile`] returns, or 0 for none.
pub fn jpeg_profile_bytes(file: &[u8]) -> u64 {
    let length = jpeg_parts(file).map(|(_, part)| part.len() as u64).sum();
    if length > MAX_PROFILE_BYTES as u64 { 0 } else { length }
}

/// Iterates over the numbers and the bytes of the parts of a JPEG's profile.
fn jpeg_parts(file: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    Segments::before_first_scan(file).filter_map(|segment| {
        // The number of parts follows the number of the part.
        let (&[number, _], part) = segment.icc_profile_part()?.split_first_chunk()?;
        Some((number, part))
    })
}

/// Joins the parts of a profile in the order of their numbers, which start at 1.
fn join_jpeg_parts<'a>(parts: impl Iterator<Item = (u8, &'a [u8])>) -> Option<Vec<u8>> {
    // One part more than the maximum shows that there are too many, so that a file cannot state millions of them.
    let mut parts: Vec<(u8, &[u8])> = parts.take(usize::from(u8::MAX) + 1).collect();
    parts.sort_by_key(|&(number, _)| number);
    let is_complete = parts.iter().zip(1..=u8::MAX).all(|(&(number, _), expected)| number == expected);
    let length: usize = parts.iter().map(|(_, part)| part.len()).sum();
    let is_usable =
        is_complete && parts.len() <= usize::from(u8::MAX) && (1..=MAX_PROFILE_BYTES).contains(&length);
    is_usable.then(|| parts.into_iter().flat_map(|(_, part)| part).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, marker][..], &length, payload].concat()
    }

    fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
        segment(0xE2, &[b"ICC_PROFILE\0", &[number, 9][..], bytes].concat())
    }

    fn jpeg(segments: &[Vec<u8>]) -> Vec<u8> {
        [&[0xFF, 0xD8][..], &segments.concat(), &segment(0xDA, &[])].concat()
    }

    #[test]
    fn samples_of_jpegs_become_amounts_of_ink() {
        let mut samples = [255, 0, 100, 55];
        convert_jpeg_samples_to_inks(&mut samples, ColourSpace::Cmyk);
        assert_eq!(samples, [0, 255, 155, 200]);
        // Luma 255 without chroma is as much of each ink as possible.
        let mut samples = [255, 128, 128, 55, 0, 128, 128, 255];
        convert_jpeg_samples_to_inks(&mut samples, ColourSpace::Ycck);
        assert_eq!(samples, [255, 255, 255, 200, 0, 0, 0, 0]);
        for colour_space in [ColourSpace::Grey, ColourSpace::YCbCr, ColourSpace::Rgb] {
            let mut samples = [255, 128, 128, 55];
            convert_jpeg_samples_to_inks(&mut samples, colour_space);
            assert_eq!(samples, [255, 128, 128, 55]);
        }
    }

    #[test]
    fn jpeg_profile_is_joined_from_its_parts() {
        let other = [segment(0xE1, b"ICC_PROFILE\0\x01\x01no"), segment(0xE2, b"MPF\0"), vec![7, 0xFF, 0xFF]];
        let file = jpeg(&[other.concat(), part(2, b"cd"), part(1, b"ab")]);
        assert_eq!(read_jpeg_profile(&file).unwrap(), b"abcd");
        assert_eq!(jpeg_profile_bytes(&file), 4);
        assert_eq!(read_jpeg_profile(&[file, part(3, b"after the scan")].concat()).unwrap(), b"abcd");
    }

    #[test]
    fn jpeg_profile_with_a_missing_part_or_above_the_limit_is_ignored() {
        for parts in [vec![], vec![part(1, b"ab"), part(3, b"cd")], vec![part(0, b"ab")], vec![part(1, b"")]]
        {
            assert_eq!(read_jpeg_profile(&jpeg(&parts)), None);
        }
        let longest = vec![0; MAX_PROFILE_BYTES];
        assert!(join_jpeg_parts([(1, &longest[..])].into_iter()).is_some());
        assert_eq!(join_jpeg_parts([(1, &longest[..]), (2, b"x")].into_iter()), None);
        let too_long: Vec<Vec<u8>> = (1..=65).map(|number| part(number, &[0; 65_500])).collect();
        assert_eq!(read_jpeg_profile(&jpeg(&too_long)), None);
        assert_eq!(jpeg_profile_bytes(&jpeg(&too_long)), 0);
        let cut = jpeg(&[part(1, b"abcd")]);
        for length in 0..cut.len() - 6 {
            assert_eq!(read_jpeg_profile(&cut[..length]), None, "{length}");
        }
    }
}
