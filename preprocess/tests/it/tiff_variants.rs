//! Tests that TIFFs of every kind of sample give the right colours, or are refused as unsupported.

mod jpegs;

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use preprocess::image::process;

use crate::{
    test_image::{
        BLUE, COLOURS, COLOURS_OF_FILES, GREEN, RED, assert_near, assert_processed, assert_quarters, decode,
        recipe, test_image,
    },
    tiff_file::{
        CHROMA_SUBSAMPLING, COLOUR_MAP, COMPRESSION, EXTRA_SAMPLES, FILL_ORDER, PLANAR_CONFIGURATION,
        PREDICTOR, ROWS_PER_STRIP, SAMPLE_FORMAT, Tiff,
    },
};

// Photometric interpretations.
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const IS_RGB: u16 = 2;
const IS_PALETTE: u16 = 3;
const IS_CMYK: u16 = 5;
const IS_YCBCR: u16 = 6;

// Compressions.
const FAX_GROUP_4: u16 = 4;
const DEFLATE: u16 = 8;

/// The size of the test image.
const SIZE: (usize, usize) = (400, 300);

/// Encodes samples in all byte orders, in one strip, in several strips and in tiles, and asserts the colours.
///
/// `quarters` are the samples of the pixels in each quarter. Samples of fewer than eight bits are packed.
fn assert_colours(
    photometric: u16,
    bits: u16,
    quarters: [&[u32]; 4],
    entries: &[(u16, &[u16])],
    expected: [[u8; 3]; 4],
    description: &str,
) {
    for is_big_endian in [false, true] {
        for tile_side in [None, Some(64)] {
            let file = tiff_of_quarters(photometric, bits, quarters, entries, is_big_endian, tile_side);
            let description = format!("{description}, big endian: {is_big_endian}, tiles: {tile_side:?}");
            assert_quarters(&file.write(), expected, &description);
        }
    }
}

fn tiff_of_quarters(
    photometric: u16,
    bits: u16,
    quarters: [&[u32]; 4],
    entries: &[(u16, &[u16])],
    is_big_endian: bool,
    tile_side: Option<usize>,
) -> Tiff {
    let (width, height) = SIZE;
    let quarter =
        |x: usize, y: usize| quarters[usize::from(x >= width / 2) + 2 * usize::from(y >= height / 2)];
    // Pixels outside the image fill the tiles at the right and at the bottom.
    let rectangle = |left: usize, top: usize, chunk_width: usize, chunk_height: usize| {
        let mut bytes = Vec::new();
        for y in top..top + chunk_height {
            let row = (left..left + chunk_width).flat_map(|x| quarter(x, y).iter().copied());
            bytes.extend(pack(row, bits, is_big_endian));
        }
        bytes
    };
    let chunks = match tile_side {
        None => (0..height).step_by(70).map(|top| rectangle(0, top, width, 70.min(height - top))).collect(),
        Some(side) => (0..height)
            .step_by(side)
            .flat_map(|top| (0..width).step_by(side).map(move |left| (left, top)))
            .map(|(left, top)| rectangle(left, top, side, side))
            .collect(),
    };
    let mut file = Tiff {
        is_big_endian,
        size: SIZE,
        photometric,
        bits,
        samples_per_pixel: u16::try_from(quarters[0].len()).unwrap(),
        entries: entries.iter().map(|(tag, values)| (*tag, values.to_vec())).collect(),
        chunks,
        tile_size: tile_side.map(|side| (side, side)),
    };
    if tile_side.is_none() {
        file = file.with(ROWS_PER_STRIP, &[70]);
    }
    file
}

/// Packs a row of samples.
fn pack(samples: impl Iterator<Item = u32>, bits: u16, is_big_endian: bool) -> Vec<u8> {
    let samples: Vec<u32> = samples.collect();
    match bits {
        16 => samples
            .into_iter()
            .map(|sample| u16::try_from(sample).unwrap())
            .flat_map(|sample| if is_big_endian { sample.to_be_bytes() } else { sample.to_le_bytes() })
            .collect(),
        32 => samples
            .into_iter()
            .flat_map(|sample| if is_big_endian { sample.to_be_bytes() } else { sample.to_le_bytes() })
            .collect(),
        _ => samples
            .chunks(usize::from(8 / bits))
            .map(|samples| {
                let packed = samples.iter().fold(0, |packed, sample| packed << bits | sample);
                let missing = usize::from(8 / bits) - samples.len();
                u8::try_from(packed << (usize::from(bits) * missing)).unwrap()
            })
            .collect(),
    }
}

/// Asserts that processing the file gives an error of this kind.
#[track_caller]
fn assert_refused(file: &Tiff, kind: &str, description: &str) {
    match process(&file.write(), &recipe()) {
        Ok(_) => panic!("{description}: accepted"),
        Err(error) => assert_eq!(error.kind(), kind, "{description}: {error:?}"),
    }
}

#[test]
fn files_of_other_programs_have_the_right_colours() {
    let on_white = [COLOURS_OF_FILES[0], [199, 236, 206], COLOURS_OF_FILES[2], COLOURS_OF_FILES[3]];
    assert_processed(
        include_bytes!("data/tiff_associated_alpha.tif"),
        (320, 240),
        on_white,
        "tiff_associated_alpha",
    );
    assert_processed(include_bytes!("data/tiff_uint32.tif"), (320, 240), COLOURS_OF_FILES, "tiff_uint32");
    assert_processed(include_bytes!("data/tiff_palette.tif"), (320, 240), COLOURS_OF_FILES, "tiff_palette");
    assert_processed(
        include_bytes!("data/tiff_grey_alpha.tif"),
        (160, 120),
        [[216; 3]; 4],
        "tiff_grey_alpha",
    );
    assert_processed(
        include_bytes!("data/tiff_jpeg_ycbcr.tif"),
        (320, 240),
        COLOURS_OF_FILES,
        "tiff_jpeg_ycbcr",
    );
}

#[test]
fn reversed_fill_order_of_1_bit_is_read_from_the_lowest_bit() {
    let processed = process(include_bytes!("data/tiff_fill_order_2.tif"), &recipe()).unwrap();
    let image = decode(&processed);
    assert_eq!(image.dimensions(), (160, 120));
    for x in 0..160 {
        let expected = if x % 8 < 3 { 255 } else { 0 };
        assert_near(image.get_pixel(x, 60).0, [expected; 3], &format!("column {x}"));
    }
}

#[test]
fn fax_in_every_fill_order_is_read() {
    // The left half is white and the right half is black. The first row is coded as the lengths of both halves,
    // and each of the other rows as "the same edges as in the row above".
    let rows = "001 10011 000101".to_owned() + &"11".repeat(15) + "000000000001000000000001";
    let bits: Vec<u8> = rows.bytes().filter(|&bit| bit != b' ').map(|bit| bit - b'0').collect();
    let bytes: Vec<u8> = bits
        .chunks(8)
        .map(|bits| bits.iter().enumerate().fold(0, |byte, (index, bit)| byte | bit << (7 - index)))
        .collect();
    for (fill_order, bytes) in
        [(1, bytes.clone()), (2, bytes.iter().map(|byte| byte.reverse_bits()).collect())]
    {
        let file = Tiff {
            is_big_endian: false,
            size: (16, 16),
            photometric: WHITE_IS_ZERO,
            bits: 1,
            samples_per_pixel: 1,
            entries: vec![
                (COMPRESSION, vec![FAX_GROUP_4]),
                (FILL_ORDER, vec![fill_order]),
                (ROWS_PER_STRIP, vec![16]),
            ],
            chunks: vec![bytes],
            tile_size: None,
        };
        let (white, black) = ([255; 3], [0; 3]);
        assert_processed(&file.write(), (16, 16), [white, black, white, black], "a fax");
    }
}

#[test]
fn alpha_is_applied_once() {
    // The opacity of the quarters is 1, a half, a quarter and 0.
    let alphas = [255u32, 128, 64, 0];
    let expected = [[200, 0, 100], [227, 127, 177], [241, 191, 216], [255; 3]];
    for (bits, largest) in [(8, 255), (16, 65_535)] {
        for (kind, is_premultiplied) in [(1, true), (2, false)] {
            let pixels = alphas.map(|alpha| {
                let scale =
                    |level: u32| level * if is_premultiplied { alpha } else { 255 } * (largest / 255) / 255;
                [scale(200), 0, scale(100), alpha * (largest / 255)]
            });
            let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
            let description = format!("{bits} bits, kind {kind}");
            assert_colours(IS_RGB, bits, quarters, &[(EXTRA_SAMPLES, &[kind])], expected, &description);
            // The alpha channel is not the last sample.
            let pixels = pixels.map(|[red, green, blue, alpha]| [red, green, blue, alpha, 7]);
            let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
            assert_colours(IS_RGB, bits, quarters, &[(EXTRA_SAMPLES, &[kind, 0])], expected, &description);
        }
    }
}

#[test]
fn grey_with_alpha_is_blended_with_white() {
    let expected = [[100; 3], [177; 3], [216; 3], [255; 3]];
    let alphas = [255u32, 128, 64, 0];
    for (bits, factor) in [(8, 1), (16, 257)] {
        let pixels = alphas.map(|alpha| [100 * factor, alpha * factor]);
        let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
        assert_colours(BLACK_IS_ZERO, bits, quarters, &[(EXTRA_SAMPLES, &[2])], expected, "separate");
        let pixels = alphas.map(|alpha| [155 * factor, alpha * factor]);
        let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
        assert_colours(WHITE_IS_ZERO, bits, quarters, &[(EXTRA_SAMPLES, &[2])], expected, "inverted");
        let pixels = alphas.map(|alpha| [100 * alpha / 255 * factor, alpha * factor]);
        let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
        assert_colours(BLACK_IS_ZERO, bits, quarters, &[(EXTRA_SAMPLES, &[1])], expected, "premultiplied");
        // The second sample has another meaning.
        let pixels = [[10 * factor, 0], [90 * factor, 0], [170 * factor, 0], [250 * factor, 0]];
        let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
        let opaque = [[10; 3], [90; 3], [170; 3], [250; 3]];
        assert_colours(BLACK_IS_ZERO, bits, quarters, &[(EXTRA_SAMPLES, &[0])], opaque, "no alpha");
    }
}

#[test]
fn grey_of_every_depth_is_read() {
    for (bits, largest) in [(1, 1), (2, 3), (4, 15), (8, 255), (16, 65_535)] {
        let levels = [[0], [largest], [largest], [0]];
        let quarters = [0, 1, 2, 3].map(|index| &levels[index][..]);
        let (black, white) = ([0; 3], [255; 3]);
        let description = format!("{bits} bits");
        assert_colours(BLACK_IS_ZERO, bits, quarters, &[], [black, white, white, black], &description);
        assert_colours(WHITE_IS_ZERO, bits, quarters, &[], [white, black, black, white], &description);
    }
    let levels = [[0], [5], [10], [15]];
    let quarters = [0, 1, 2, 3].map(|index| &levels[index][..]);
    assert_colours(BLACK_IS_ZERO, 4, quarters, &[], [[0; 3], [85; 3], [170; 3], [255; 3]], "4 bits");
}

#[test]
fn palette_of_every_depth_is_read() {
    for bits in [2, 4, 8] {
        let colour_count = 1 << bits;
        // The last four colours are used.
        let mut map = vec![0; 3 * colour_count];
        for (index, colour) in COLOURS.into_iter().enumerate() {
            for (channel, level) in colour.into_iter().enumerate() {
                map[(channel + 1) * colour_count - 4 + index] = u16::from(level);
            }
        }
        let first = u32::try_from(colour_count).unwrap() - 4;
        let indices = [0, 1, 2, 3].map(|index| [first + index]);
        let quarters = [0, 1, 2, 3].map(|index| &indices[index][..]);
        assert_colours(IS_PALETTE, bits, quarters, &[(COLOUR_MAP, &map)], COLOURS, "levels of 8 bits");
        let map: Vec<u16> = map.iter().map(|level| level << 8).collect();
        assert_colours(IS_PALETTE, bits, quarters, &[(COLOUR_MAP, &map)], COLOURS, "levels of 16 bits");
    }
    let indices = [[0, 255], [1, 255], [2, 255], [3, 0]];
    let quarters = [0, 1, 2, 3].map(|index| &indices[index][..]);
    let mut map = vec![0; 3 * 256];
    for (index, colour) in [RED, GREEN, BLUE].into_iter().enumerate() {
        for (channel, level) in colour.into_iter().enumerate() {
            map[channel * 256 + index] = u16::from(level) * 257;
        }
    }
    let entries = [(COLOUR_MAP, &map[..]), (EXTRA_SAMPLES, &[2][..])];
    assert_colours(IS_PALETTE, 8, quarters, &entries, [RED, GREEN, BLUE, [255; 3]], "with alpha");
    let incomplete = tiff_of_quarters(IS_PALETTE, 8, quarters, &[(COLOUR_MAP, &[0; 300])], false, None);
    assert_refused(&incomplete, "unsupported_format", "incomplete palette");
}

/// Returns the colours of the test image as samples, multiplied with `factor`.
fn colour_samples(factor: u32) -> [[u32; 3]; 4] {
    COLOURS.map(|colour| colour.map(|level| u32::from(level) * factor))
}

#[test]
fn integers_of_32_bits_are_read_as_integers() {
    let pixels = colour_samples(0x0101_0101);
    let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
    assert_colours(IS_RGB, 32, quarters, &[], COLOURS, "without a format");
    assert_colours(IS_RGB, 32, quarters, &[(SAMPLE_FORMAT, &[1, 1, 1])], COLOURS, "unsigned");
    let floats = COLOURS.map(|colour| colour.map(|level| (f32::from(level) / 255.0).to_bits()));
    let float_quarters = [0, 1, 2, 3].map(|index| &floats[index][..]);
    assert_colours(IS_RGB, 32, float_quarters, &[(SAMPLE_FORMAT, &[3, 3, 3])], COLOURS, "floats");

    let signed = tiff_of_quarters(IS_RGB, 32, quarters, &[(SAMPLE_FORMAT, &[2, 2, 2])], false, None);
    assert_refused(&signed, "unsupported_format", "signed");
    let grey = [0, 1, 2, 3].map(|index| &pixels[index][..1]);
    let grey = tiff_of_quarters(BLACK_IS_ZERO, 32, grey, &[], false, None);
    assert_refused(&grey, "unsupported_format", "grey of 32 bits");
}

#[test]
fn rgb_of_every_other_depth_is_read() {
    for (bits, factor) in [(8, 1), (16, 257)] {
        let pixels = colour_samples(factor);
        let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
        assert_colours(IS_RGB, bits, quarters, &[], COLOURS, &format!("{bits} bits"));
    }
    let (black, cyan, magenta, yellow) = ([0; 3], [0, 255, 255], [255, 0, 255], [255, 255, 0]);
    let pixels = [[0, 0, 0], [0, 15, 15], [15, 0, 15], [15, 15, 0]];
    let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
    assert_colours(IS_RGB, 4, quarters, &[], [black, cyan, magenta, yellow], "4 bits");
}

#[test]
fn samples_without_a_meaning_are_skipped_before_the_predictor_is_applied() {
    let row: Vec<u8> =
        (0..SIZE.0).flat_map(|x| [[10, 200, 30, 1, 99], [200, 20, 90, 3, 55]][x / 200]).collect();
    let differences: Vec<u8> = (0..row.len())
        .map(|index| row[index].wrapping_sub(if index < 5 { 0 } else { row[index - 5] }))
        .collect();
    let mut compressed = ZlibEncoder::new(Vec::new(), Compression::fast());
    compressed.write_all(&differences.repeat(SIZE.1)).unwrap();
    let file = Tiff {
        is_big_endian: false,
        size: SIZE,
        photometric: IS_RGB,
        bits: 8,
        samples_per_pixel: 5,
        entries: vec![
            (COMPRESSION, vec![DEFLATE]),
            (EXTRA_SAMPLES, vec![0, 0]),
            (PREDICTOR, vec![2]),
            (ROWS_PER_STRIP, vec![300]),
        ],
        chunks: vec![compressed.finish().unwrap()],
        tile_size: None,
    };
    let (left, right) = ([10, 200, 30], [200, 20, 90]);
    assert_quarters(&file.write(), [left, right, left, right], "predictor");
}

#[test]
fn cmyk_and_ycbcr_without_a_profile_are_converted() {
    // The amount of cyan, magenta or yellow is the difference of red, green or blue from white.
    let pixels = COLOURS.map(|[red, green, blue]| [255 - red, 255 - green, 255 - blue, 0].map(u32::from));
    let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
    assert_colours(IS_CMYK, 8, quarters, &[], COLOURS, "CMYK");
    let grey = [[0, 0, 0, 155]; 4];
    let quarters = [0, 1, 2, 3].map(|index| &grey[index][..]);
    assert_colours(IS_CMYK, 8, quarters, &[], [[100; 3]; 4], "black ink only");

    let pixels = [[76, 85, 255], [150, 44, 21], [29, 255, 107], [100, 128, 128]];
    let quarters = [0, 1, 2, 3].map(|index| &pixels[index][..]);
    let expected = [[254, 0, 0], [0, 255, 1], [0, 0, 254], [100; 3]];
    assert_colours(IS_YCBCR, 8, quarters, &[(CHROMA_SUBSAMPLING, &[1, 1])], expected, "YCbCr");
    let subsampled = tiff_of_quarters(IS_YCBCR, 8, quarters, &[], false, None);
    assert_refused(&subsampled, "unsupported_format", "chroma of a lower resolution");
}

/// Returns the samples of the test image in three planes of one strip each, or in three planes of tiles.
fn planar(tile_size: Option<(usize, usize)>) -> Tiff {
    let (width, height) = SIZE;
    let pixels = test_image();
    let (chunk_width, chunk_height) = tile_size.unwrap_or(SIZE);
    let level = |x: usize, y: usize, plane: usize| {
        let (x, y) = (x.min(width - 1), y.min(height - 1));
        pixels.get_pixel(u32::try_from(x).unwrap(), u32::try_from(y).unwrap()).0[plane]
    };
    let mut chunks = Vec::new();
    for plane in 0..3 {
        for top in (0..height).step_by(chunk_height) {
            for left in (0..width).step_by(chunk_width) {
                let rows = top..top + chunk_height;
                chunks.push(
                    rows.flat_map(|y| (left..left + chunk_width).map(move |x| (x, y)))
                        .map(|(x, y)| level(x, y, plane))
                        .collect(),
                );
            }
        }
    }
    Tiff {
        is_big_endian: false,
        size: SIZE,
        photometric: IS_RGB,
        bits: 8,
        samples_per_pixel: 3,
        entries: vec![(PLANAR_CONFIGURATION, vec![2])],
        chunks,
        tile_size,
    }
}

#[test]
fn planes_are_joined() {
    assert_quarters(&planar(None).write(), COLOURS, "planes in strips");
    for tile_size in [(80, 60), (64, 60), (80, 64), (64, 64), (512, 512)] {
        assert_quarters(
            &planar(Some(tile_size)).write(),
            COLOURS,
            &format!("planes in tiles of {tile_size:?}"),
        );
    }
    let mut large_tiles = planar(Some((64, 64)));
    large_tiles.tile_size = Some((2048, 1024));
    assert_refused(&large_tiles, "unsupported_format", "large tiles");
    large_tiles.tile_size = Some((0, 64));
    assert_refused(&large_tiles, "unsupported_format", "tiles without a width");
    large_tiles.tile_size = Some((32, 32));
    assert_refused(&large_tiles, "corrupt_image", "too few tiles");
}
