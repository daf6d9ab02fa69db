//! Damage of a stored image that is visible in its content.

/// Returns true if `content`, the content of `<id>/image.jpg`, shows no sign of damage.
///
/// A file that was overwritten with zeros does not begin as an image does, and a JPEG that was cut off has no end
/// marker. Bytes after the end marker are no damage, because decoders ignore them. Buckets detect damage
/// themselves, unless the object was stored without a checksum.
pub fn stored_image_looks_intact(content: &[u8]) -> bool {
    const LONGEST_SIGNATURE: usize = 16;
    let is_empty_or_zeroed = content.iter().take(LONGEST_SIGNATURE).all(|byte| *byte == 0);
    // The image data of a JPEG never contains the bytes of the end marker.
    let has_end_marker = || content.windows(2).rev().any(|bytes| bytes == b"\xff\xd9");
    let is_cut_jpeg = content.starts_with(b"\xff\xd8\xff") && !has_end_marker();
    !is_empty_or_zeroed && !is_cut_jpeg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_or_zeroed_image_does_not_look_intact() {
        let jpeg = [b"\xff\xd8\xff\xe0".to_vec(), vec![1; 100], b"\xff\xd9".to_vec()].concat();
        assert!(stored_image_looks_intact(&jpeg));
        assert!(stored_image_looks_intact(&[&jpeg[..], &[9; 10]].concat()), "decoders ignore what follows");
        for length in 0..jpeg.len() {
            let cut_and_padded = [&jpeg[..length], &vec![0; jpeg.len() - length]].concat();
            // Fewer than three bytes are not recognised as the beginning of a JPEG.
            assert!(length == 1 || length == 2 || !stored_image_looks_intact(&jpeg[..length]), "{length}");
            assert!(length == 1 || length == 2 || !stored_image_looks_intact(&cut_and_padded), "{length}");
        }
        assert!(stored_image_looks_intact(b"not an image"), "other content was put there on purpose");
    }
}
