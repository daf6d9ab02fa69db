//! Hostile AVIFs. The tests of the crate `heif-picture` contain more.

use super::{
    files::{
        Expected::{RefusedBeforeDecoding, RefusedByDecoder},
        HostileFile, hostile_file,
    },
    heic::patch,
};

pub(super) fn files() -> Vec<HostileFile> {
    let picture = &include_bytes!("../data/avif_444.avif")[..];
    let corrupt = RefusedBeforeDecoding("corrupt_image");
    // The offset of the width in `ispe`, behind the version and the flags.
    let with_width = |width: [u8; 4]| patch(picture, b"ispe", 4, &width);
    vec![
        hostile_file(
            "avif-100-megapixels-in-2-kilobytes",
            RefusedBeforeDecoding("too_many_pixels"),
            include_bytes!("../data/avif_100_megapixels.avif").to_vec(),
        ),
        hostile_file("avif-zero-width", corrupt, with_width([0; 4])),
        // A picture is stretched to the size that its item states, but not to any size.
        hostile_file(
            "avif-item-larger-than-its-picture",
            RefusedBeforeDecoding("side_too_long"),
            with_width([0, 1, 0, 0]),
        ),
        hostile_file("avif-truncated-in-its-boxes", corrupt, picture[..200].to_vec()),
        hostile_file("avif-truncated-in-its-pixels", corrupt, picture[..picture.len() - 1].to_vec()),
        hostile_file("avif-pixels-of-zeros", RefusedByDecoder("corrupt_image"), {
            let mut zeros = picture.to_vec();
            let length = zeros.len();
            zeros[length - 20..].fill(0);
            zeros
        }),
        hostile_file("avif-without-boxes", corrupt, b"\0\0\0\x18ftypavif\0\0\0\0mif1avif".to_vec()),
    ]
}
