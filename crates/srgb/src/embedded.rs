//! Profiles as JPEG and PNG store them.

use std::io::{self, Read, Write};

use flate2::read::ZlibDecoder;
use jpeg_scaled::Segments;

/// Maximum length of an ICC profile in bytes. Longer profiles are ignored.
///
/// The profiles of cameras and displays have some kilobytes. Those of print shops have up to three megabytes.
pub const MAX_PROFILE_BYTES: usize = 4 << 20;

/// Maximum length of the compressed profile of a PNG in bytes. Longer ones are ignored.
///
/// The length of the profile itself does not limit the time, because empty blocks can follow each other without end.
const MAX_COMPRESSED_BYTES: usize = 1 << 20;

/// Reads the profile of a JPEG from the segments before the first scan. A long profile consists of several parts.
///
/// Returns `None` if a part is missing, or if the profile is too long.
pub fn read_jpeg_profile(file: &[u8]) -> Option<Vec<u8>> {
    join_jpeg_parts(jpeg_parts(file))
}

/// Returns the length of the profile that [`read_jpeg_profile`] returns, or 0 for none.
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

/// Reads the profile of a PNG from the chunk iCCP before the pixels.
///
/// Returns `None` if the profile is damaged or too long, compressed or not.
pub fn read_png_profile(file: &[u8]) -> Option<Vec<u8>> {
    let mut profile = Vec::new();
    inflate_png_profile(file, &mut profile).map(|_| profile)
}

/// Returns the length of the profile that [`read_png_profile`] returns, or 0 for none.
///
/// Inflates the profile without keeping it, because the length in its header is often wrong.
pub fn png_profile_bytes(file: &[u8]) -> u64 {
    inflate_png_profile(file, &mut io::sink()).unwrap_or(0)
}

/// Writes the profile of a PNG to `output`, and returns its length. Returns `None` if it is damaged or too long.
fn inflate_png_profile(file: &[u8], output: &mut impl Write) -> Option<u64> {
    // One byte more than the maximum shows that the profile is too long.
    let limit = MAX_PROFILE_BYTES as u64 + 1;
    let length = io::copy(&mut ZlibDecoder::new(find_png_profile(file)?).take(limit), output).ok()?;
    (length < limit).then_some(length)
}

/// Searches the chunks before the pixels of a PNG for the compressed profile.
fn find_png_profile(file: &[u8]) -> Option<&[u8]> {
    const SIGNATURE_BYTES: usize = 8;
    const CHECKSUM_BYTES: usize = 4;
    let mut rest = file.get(SIGNATURE_BYTES..)?;
    loop {
        let (length, after_length) = rest.split_first_chunk()?;
        let (name, after_name) = after_length.split_first_chunk::<4>()?;
        let (data, after_data) =
            after_name.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        match name {
            b"IDAT" => return None,
            b"iCCP" => {
                // A name, a zero byte and the compression method precede the compressed profile.
                let name_length = data.iter().position(|&byte| byte == 0)?;
                return data.get(name_length + 2..).filter(|profile| profile.len() <= MAX_COMPRESSED_BYTES);
            }
            _ => rest = after_data.get(CHECKSUM_BYTES..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::ZlibEncoder};

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
    fn png_profile_of_empty_blocks_is_ignored() {
        let compressed = [&b"\x78\x01"[..], &b"\0\0\0\xFF\xFF".repeat(MAX_COMPRESSED_BYTES / 5)].concat();
        let end = b"\x01\x02\0\xFD\xFFab\x01\x26\0\xC4";
        let png = |compressed: &[u8]| {
            let data = [b"a\0\0", compressed].concat();
            let length = u32::try_from(data.len()).unwrap().to_be_bytes();
            [&b"\x89PNG\r\n\x1a\n"[..], &length, b"iCCP", &data, &[0; 4]].concat()
        };
        assert_eq!(read_png_profile(&png(&[&compressed[..100 * 5 + 2], end].concat())).unwrap(), b"ab");
        assert_eq!(png_profile_bytes(&png(&[&compressed, &end[..]].concat())), 0);
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

    #[test]
    fn png_profile_is_inflated_up_to_the_limit_and_ignored_above_it() {
        let png = |name: &[u8; 4], profile: &[u8]| {
            let length = u32::try_from(profile.len()).unwrap().to_be_bytes();
            [&b"\x89PNG\r\n\x1a\n\0\0\0\0tEXt\0\0\0\0"[..], &length, name, profile, &[0; 4]].concat()
        };
        let compress = |length: usize| {
            let mut chunk = ZlibEncoder::new(b"name\0\0".to_vec(), Compression::best());
            chunk.write_all(&vec![7; length]).unwrap();
            chunk.finish().unwrap()
        };
        let longest = png(b"iCCP", &compress(MAX_PROFILE_BYTES));
        assert_eq!(read_png_profile(&longest).unwrap().len(), MAX_PROFILE_BYTES);
        assert_eq!(png_profile_bytes(&longest), MAX_PROFILE_BYTES as u64);
        let too_long = png(b"iCCP", &compress(MAX_PROFILE_BYTES + 1));
        assert_eq!((read_png_profile(&too_long), png_profile_bytes(&too_long)), (None, 0));
        for (name, chunk) in [(b"iCCP", &b"name\0\0rubbish"[..]), (b"iCCP", b"name"), (b"IDAT", b"name\0\0")]
        {
            assert_eq!(read_png_profile(&png(name, chunk)), None);
        }
    }
}
