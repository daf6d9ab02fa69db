//! Tests of pictures that consist of several slices.

use super::{
    hostile::{process, units},
    test_file::{Bits, TestFile, TestItem, hvcc, ispe, sps},
};
use crate::{Error, Plan};

/// Side in pixels of a picture of 2×2 blocks.
const SIDE: u32 = 32;

/// Coded data of a block of 16×16 pixels that is not flat, and of the end of a slice. Found by trying.
const BLOCK: [u8; 3] = [0x06, 0x5A, 0x8E];

/// A slice of one block.
#[derive(Clone, Copy)]
struct Slice {
    /// Index of its block, row by row.
    address: u64,
    /// True if the slice states that a picture begins.
    is_first: bool,
    pps: u32,
}

/// Returns slices at these addresses, of which the first one begins the picture.
fn slices(addresses: &[u64]) -> Vec<Slice> {
    let slice = |(index, &address)| Slice { address, is_first: index == 0, pps: 0 };
    addresses.iter().enumerate().map(slice).collect()
}

/// Writes a picture parameter set.
fn pps(id: u32, (tile_columns, tile_rows): (u32, u32)) -> Vec<u8> {
    let has_tiles = tile_columns * tile_rows > 1;
    let mut bits = Bits::default();
    bits.write_golomb(id);
    bits.write_golomb(0);
    // No dependent slices, further bits or hidden signs.
    bits.write(0, 7);
    for number in [0; 3] {
        bits.write_golomb(number);
    }
    // No constrained prediction, skipped transforms or changes of quality.
    bits.write(0, 3);
    bits.write_golomb(0);
    bits.write_golomb(0);
    bits.write(0, 4);
    bits.write(u64::from(has_tiles), 1);
    bits.write(0, 1);
    if has_tiles {
        bits.write_golomb(tile_columns - 1);
        bits.write_golomb(tile_rows - 1);
        // Of equal size, without filters across them.
        bits.write(0b10, 2);
    }
    // No filters across slices, and nothing that is specific to them.
    bits.write(0, 4);
    bits.write_golomb(0);
    // No extension.
    bits.write(0b001, 3);
    [&[0x44, 1], &bits.bytes[..]].concat()
}

impl Slice {
    fn write(self, has_tiles: bool) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.write(u64::from(self.is_first), 1);
        bits.write(0, 1);
        bits.write_golomb(self.pps);
        if !self.is_first {
            bits.write(self.address, 2);
        }
        // Predicted from no other picture, with the usual quality.
        bits.write_golomb(2);
        bits.write_golomb(0);
        if has_tiles {
            bits.write_golomb(0);
        }
        bits.write(1, 1);
        [&[0x28, 1], &bits.bytes[..], &BLOCK].concat()
    }
}

fn file(slices: &[Slice], tile_columns: u32) -> Vec<u8> {
    let pps = |id| pps(id, (tile_columns, 1));
    file_with_sets(slices, tile_columns > 1, (SIDE, SIDE), &[&pps(0), &pps(1)])
}

/// Writes a picture of this width and height with these picture parameter sets.
fn file_with_sets(slices: &[Slice], has_tiles: bool, (width, height): (u32, u32), pps: &[&[u8]]) -> Vec<u8> {
    let sps = sps(width, height, None);
    let sets = [&[&sps[..]], pps].concat();
    let slices: Vec<_> = slices.iter().map(|slice| slice.write(has_tiles)).collect();
    let mut file = TestFile::with_picture();
    file.items[0] = TestItem {
        properties: vec![(b"hvcC", hvcc(&sets)), (b"ispe", ispe(width, height))],
        extents: vec![units(&slices.iter().map(Vec::as_slice).collect::<Vec<_>>())],
        ..TestItem::picture(1)
    };
    file.write()
}

#[track_caller]
fn assert_refused(file: &[u8], reason: &str) {
    let error = process(file).unwrap_err();
    assert!(matches!(error, Error::Corrupt(found) if found.contains(reason)), "{error}");
}

#[test]
fn slices_that_follow_each_other_are_decoded() {
    // The blocks of the first column of tiles come first.
    for (tile_columns, addresses) in [(1, [0, 1, 2, 3]), (2, [0, 2, 1, 3])] {
        let file = file(&slices(&addresses), tile_columns);
        let plan = Plan::read(&file).unwrap();
        let mut colours = vec![0; plan.colour_bytes()];
        plan.decode(&mut colours, &mut []).unwrap();
        let (pixels, _) = colours.as_chunks::<3>();
        let block = |left: usize, top: usize| {
            let rows = pixels.chunks(32).skip(top).take(16);
            rows.flat_map(|row| row[left..left + 16].to_vec()).collect::<Vec<_>>()
        };
        let first = block(0, 0);
        assert!(first.iter().any(|pixel| *pixel != first[0]));
        for (left, top) in [(16, 0), (0, 16), (16, 16)] {
            assert_eq!(block(left, top), first, "{tile_columns} {left} {top}");
        }
    }
}

#[test]
fn slices_that_repeat_or_leave_out_blocks_are_refused() {
    for addresses in
        [&[0, 0, 0, 0][..], &[0; 2000], &[0, 1, 1, 2], &[0, 1, 3, 3], &[0, 2, 1, 3], &[0, 1, 2, 3, 3]]
    {
        assert_refused(&file(&slices(addresses), 1), "does not begin where the previous one ends");
    }
    assert_refused(&file(&slices(&[0, 1, 2, 3]), 2), "does not begin where the previous one ends");
    assert_refused(&file(&slices(&[0, 1, 2]), 1), "incomplete");
    // A first slice that is in the middle.
    let late = Slice { address: 1, is_first: false, pps: 0 };
    assert_refused(&file(&[late], 1), "does not begin where the previous one ends");
    assert_refused(&file(&[], 1), "no slice");
}

#[test]
fn slices_with_different_parameter_sets_are_refused() {
    let mut different = slices(&[0, 1, 2, 3]);
    different[2].pps = 1;
    assert_refused(&file(&different, 1), "different parameter sets");
}

#[test]
fn later_picture_is_ignored() {
    let mut pictures = slices(&[0, 1, 2, 3]);
    pictures.extend(slices(&[0, 0]));
    process(&file(&pictures, 1)).unwrap();
}

#[test]
fn slices_that_repeat_a_picture_of_one_block_are_refused() {
    let mut file = TestFile::with_picture();
    let mut repeated = file.items[0].extents[0].clone();
    // The first bit behind the length and the header states that a picture begins.
    repeated[4 + 2] &= 0x7F;
    file.items[0].extents[0].extend(repeated.repeat(2000));
    assert_refused(&file.write(), "does not begin where the previous one ends");
}

#[test]
fn pictures_with_many_tiles_are_refused() {
    let first = slices(&[0]);
    let decode = |tiles| {
        let file = file_with_sets(&first, true, (512, 512), &[&pps(0, tiles)]);
        let plan = Plan::read(&file).unwrap();
        let mut colours = vec![0; plan.colour_bytes()];
        plan.decode(&mut colours, &mut []).unwrap_err()
    };
    for tiles in [(21, 1), (1, 23), (32, 32)] {
        let error = decode(tiles);
        assert!(error.is_unsupported() && error.to_string().contains("more than 20×22 tiles"), "{error}");
    }
    // The picture lacks its other blocks.
    assert!(decode((20, 22)).to_string().contains("incomplete"));
}
