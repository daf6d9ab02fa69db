//! Hostile HEICs. The tests of the crate `heif-picture` contain many more.

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, length32,
};

/// Returns the offset of the first box of this type behind its length and type.
fn find_box(file: &[u8], kind: &[u8; 4]) -> usize {
    file.windows(4).position(|window| window == kind).unwrap() + 4
}

/// Replaces bytes at an offset from the content of a box.
pub(super) fn patch(file: &[u8], kind: &[u8; 4], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let start = find_box(&file, kind) + offset;
    file[start..start + bytes.len()].copy_from_slice(bytes);
    file
}

/// Returns a picture of a single block whose only slice is repeated 2,000 times. Each slice is the whole picture.
fn repeated_slices() -> Vec<u8> {
    /// Length in bytes of a slice with the length in front of it.
    const SLICE_BYTES: usize = 62;
    /// Offset in `iloc` of the length of the data, behind the version, the sizes of the fields, the number of items,
    /// an item, its base, the number of extents and an offset.
    const DATA_LENGTH: usize = 22;
    let file = &include_bytes!("../../../../crates/heif-picture/src/tests/quarters.heic")[..];
    // The slice is the end of the file.
    let mut slice = file[file.len() - SLICE_BYTES..].to_vec();
    // The first bit behind the length and the header states that a picture begins.
    slice[4 + 2] &= 0x7F;
    let slices = slice.repeat(2000);
    let length = length32(SLICE_BYTES + slices.len()).to_be_bytes();
    [patch(file, b"iloc", DATA_LENGTH, &length), slices].concat()
}

/// Offset of the width in `ispe`, behind the version and the flags.
const WIDTH: usize = 4;

pub(super) fn files() -> Vec<HostileFile> {
    let picture = &include_bytes!("../data/heic_444.heic")[..];
    let tiles = &include_bytes!("../data/heic_tiles_of_64.heic")[..];
    let corrupt = RefusedBeforeDecoding("corrupt_image");
    vec![
        hostile_file(
            "heic-15-tiles-of-16-megapixels",
            RefusedBeforeDecoding("too_many_pixels"),
            include_bytes!("../data/heic_15_tiles_of_16_mp.heic").to_vec(),
        ),
        hostile_file(
            "heic-25-megapixels-in-6-kilobytes",
            Processed,
            include_bytes!("../data/heic_25_megapixels.heic").to_vec(),
        ),
        hostile_file("heic-zero-width", corrupt, patch(picture, b"ispe", WIDTH, &[0; 4])),
        hostile_file(
            "heic-item-larger-than-its-picture",
            corrupt,
            patch(picture, b"ispe", WIDTH, &[0, 1, 0, 0]),
        ),
        hostile_file(
            "heic-locations-end-too-early",
            corrupt,
            patch(picture, b"iloc", 4, &[0x44, 0, 0xFF, 0xFF]),
        ),
        hostile_file("heic-tile-that-is-its-own-grid", RefusedBeforeDecoding("unsupported_format"), {
            // The reference consists of the id of the grid, the number of tiles and their ids.
            let reference = find_box(tiles, b"dimg");
            let (grid, tile_count) = (&tiles[reference..reference + 2], usize::from(tiles[reference + 3]));
            patch(tiles, b"dimg", 4, &grid.repeat(tile_count))
        }),
        hostile_file("heic-truncated-in-its-boxes", corrupt, picture[..200].to_vec()),
        hostile_file("heic-truncated-in-its-pixels", corrupt, picture[..picture.len() - 1].to_vec()),
        hostile_file("heic-pixels-of-zeros", RefusedByDecoder("corrupt_image"), {
            let mut zeros = picture.to_vec();
            let length = zeros.len();
            zeros[length - 40..].fill(0);
            zeros
        }),
        hostile_file("heic-repeated-slices", RefusedByDecoder("corrupt_image"), repeated_slices()),
        hostile_file("heic-without-boxes", corrupt, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
    ]
}
