//! The ICC profile of a PNG, which is compressed.

use std::io::{self, Read, Write};

use flate2::read::ZlibDecoder;

use crate::MAX_PROFILE_BYTES;

/// Maximum length of the compressed profile of a PNG in bytes. Longer ones are ignored.
///
/// The length of the profile itself does not limit the time, because empty blocks can follow each other without end.
const MAX_COMPRESSED_BYTES: usize = 1 << 20;

/// Returns true if a PNG has a profile of usable length. Takes little time, because it inflates nothing.
///
/// The other functions inflate up to [`MAX_PROFILE_BYTES`], which takes milliseconds and must not happen on an async
/// worker.
pub fn has_png_profile(file: &[u8]) -> bool {
    find_png_profile(file).is_some()
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
        let too_long = png(&[&compressed, &end[..]].concat());
        assert_eq!(png_profile_bytes(&too_long), 0);
        assert!(!has_png_profile(&too_long));
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
        assert!(has_png_profile(&longest));
        let too_long = png(b"iCCP", &compress(MAX_PROFILE_BYTES + 1));
        assert_eq!((read_png_profile(&too_long), png_profile_bytes(&too_long)), (None, 0));
        for (name, chunk) in [(b"iCCP", &b"name\0\0rubbish"[..]), (b"iCCP", b"name"), (b"IDAT", b"name\0\0")]
        {
            assert_eq!(read_png_profile(&png(name, chunk)), None);
        }
    }
}
