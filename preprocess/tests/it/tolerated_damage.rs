//! Tests of files that contradict their format and are shown by other programs.

use image::{ImageFormat, Rgba, RgbaImage};
use preprocess::image::process;

use crate::{
    hand_made::{palette_png, png_chunk},
    test_image::{
        BLUE, COLOURS, COLOURS_OF_FILES, GREEN, RED, YELLOW, assert_near, assert_processed, assert_quarters,
        decode, encode, quarter_colours, recipe, test_image,
    },
    tiff_file::{BITS_PER_SAMPLE, Tiff},
};

#[track_caller]
fn assert_corrupt(file: &[u8], description: &str) {
    match process(file, &recipe()) {
        Ok(_) => panic!("{description}: accepted"),
        Err(error) => assert_eq!(error.kind(), "corrupt_image", "{description}: {error:?}"),
    }
}

/// Returns the test image as a GIF whose screen has this size.
fn gif_with_screen(width: u16, height: u16) -> Vec<u8> {
    let mut file = encode(test_image(), ImageFormat::Gif);
    file[6..8].copy_from_slice(&width.to_le_bytes());
    file[8..10].copy_from_slice(&height.to_le_bytes());
    file
}

#[test]
fn gif_screen_that_is_smaller_than_the_first_frame_is_enlarged() {
    let file = include_bytes!("data/gif_frame_larger_than_screen.gif");
    assert_processed(file, (160, 120), COLOURS_OF_FILES, "larger than the screen");
    for (width, height) in [(0, 0), (1, 1), (400, 0), (0, 300), (100, 300), (400, 299)] {
        assert_quarters(&gif_with_screen(width, height), COLOURS, &format!("screen of {width}×{height}"));
    }
}

#[test]
fn gif_frame_at_an_offset_enlarges_the_screen_by_the_offset() {
    let mut file = gif_with_screen(10, 10);
    let descriptor = file.iter().rposition(|&byte| byte == 0x2C).unwrap();
    let descriptor = (0..=descriptor)
        .find(|&offset| file[offset..].starts_with(&[0x2C, 0, 0, 0, 0, 0x90, 1, 0x2C, 1]))
        .unwrap();
    file[descriptor + 1..descriptor + 5].copy_from_slice(&[100, 0, 50, 0]);
    let processed = process(&file, &recipe()).unwrap();
    // The screen has 500×350 pixels. The transparent pixels to the left and above the frame become white.
    assert_eq!((processed.width, processed.height), (366, 256));
    let image = decode(&processed);
    assert_near(image.get_pixel(30, 20).0, [255; 3], "outside the frame");
    assert_near(image.get_pixel(100, 60).0, RED, "inside the frame");
    assert_near(image.get_pixel(350, 240).0, YELLOW, "the end of the frame");
}

/// Writes a BMP of 400×300 pixels with a palette of four colours, which states this offset of the pixels.
fn bmp_with_palette(bits: u16, header_bytes: u32, colour_count: u32, stated_offset: u32) -> Vec<u8> {
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    file.extend(stated_offset.to_le_bytes());
    file.extend(header_bytes.to_le_bytes());
    if header_bytes == 12 {
        file.extend([400u16, 300, 1, bits].iter().flat_map(|number| number.to_le_bytes()));
    } else {
        file.extend([400u32, 300].iter().flat_map(|number| number.to_le_bytes()));
        file.extend([1, bits].iter().flat_map(|number| number.to_le_bytes()));
        file.extend([0; 16]);
        file.extend(colour_count.to_le_bytes());
        file.resize(14 + header_bytes as usize, 0);
    }
    let palette_length = if colour_count == 0 { 1 << bits } else { colour_count as usize };
    for index in 0..palette_length {
        let [red, green, blue] = COLOURS.get(index).copied().unwrap_or_default();
        file.extend([blue, green, red]);
        if header_bytes != 12 {
            file.push(0);
        }
    }
    // The rows are stored from bottom to top.
    for y in (0..300).rev() {
        let index = |x: usize| u8::from(x >= 200) + 2 * u8::from(y >= 150);
        let pixels_per_byte = usize::from(8 / bits);
        let row: Vec<u8> = (0..400 / pixels_per_byte)
            .map(|byte| {
                (0..pixels_per_byte).fold(0, |packed: u8, pixel| {
                    packed.wrapping_shl(bits.into()) | index(byte * pixels_per_byte + pixel)
                })
            })
            .collect();
        file.extend(&row);
        file.resize(file.len() + row.len().wrapping_neg() % 4, 0);
    }
    file
}

#[test]
fn bmp_pixels_follow_the_palette_even_if_the_offset_omits_the_palette() {
    for bits in [4, 8] {
        for header_bytes in [12, 40, 108, 124] {
            for colour_count in [0, 4] {
                let colour_count = if header_bytes == 12 { 0 } else { colour_count };
                let palette_bytes = if colour_count == 0 { 1 << bits } else { colour_count }
                    * if header_bytes == 12 { 3 } else { 4 };
                for offset in [14 + header_bytes + palette_bytes, 14 + header_bytes, 0] {
                    let file = bmp_with_palette(bits, header_bytes, colour_count, offset);
                    let description = format!(
                        "{bits} bits, header of {header_bytes}, {colour_count} colours, offset {offset}"
                    );
                    assert_quarters(&file, COLOURS, &description);
                }
            }
        }
    }
}

#[test]
fn bmp_may_lack_the_padding_of_its_last_row_but_no_pixel() {
    // A row has 1197 bytes and three bytes of padding.
    let image = image::DynamicImage::from(test_image()).crop_imm(0, 0, 399, 300);
    let file = encode(image, ImageFormat::Bmp);
    let processed = process(&file[..file.len() - 3], &recipe()).unwrap();
    for (found, expected) in quarter_colours(&decode(&processed)).into_iter().zip(COLOURS) {
        assert_near(found, expected, "without padding");
    }
    assert_corrupt(&file[..file.len() - 4], "without a pixel");
}

/// Returns the offset of the first chunk with this name.
fn find_chunk(file: &[u8], name: &[u8; 4]) -> usize {
    file.windows(4).position(|window| window == name).unwrap() - 4
}

/// Returns the test image as a PNG whose pixels are in chunks of at most 500 bytes.
fn png_with_many_chunks() -> Vec<u8> {
    let file = encode(test_image(), ImageFormat::Png);
    let start = find_chunk(&file, b"IDAT");
    let mut pixels = Vec::new();
    let mut offset = start;
    while file[offset + 4..offset + 8] == *b"IDAT" {
        let length = u32::from_be_bytes(file[offset..offset + 4].try_into().unwrap()) as usize;
        pixels.extend(&file[offset + 8..offset + 8 + length]);
        offset += 12 + length;
    }
    let chunks: Vec<u8> = pixels.chunks(500).flat_map(|part| png_chunk(b"IDAT", part)).collect();
    [&file[..start], &chunks, &file[offset..]].concat()
}

#[test]
fn png_without_its_end_is_read_if_it_has_all_pixels() {
    let file = png_with_many_chunks();
    let end = find_chunk(&file, b"IEND");
    for (length, description) in
        [(end, "no end"), (end + 5, "half an end"), (end - 2, "half a checksum"), (end - 4, "no checksum")]
    {
        assert_quarters(&file[..length], COLOURS, description);
    }
    for length in [end - 5, end - 100, end / 2] {
        assert_corrupt(&file[..length], &format!("{length} of {end} bytes"));
    }
    let with_rubbish = [&file[..end], &[7; 1000]].concat();
    assert_quarters(&with_rubbish, COLOURS, "rubbish after the pixels");
}

#[test]
fn interlaced_png_with_a_palette_is_read_without_its_end() {
    // A white image of 8×8 pixels: the seven parts have 15 rows of one byte after the filter byte.
    let rows = vec![vec![0xFF]; 15];
    let file = palette_png(8, 1, &rows, &[[0, 0, 0, 255], [255, 255, 255, 255]]);
    let mut header = file[16..29].to_vec();
    header[7] = 8;
    header[12] = 1;
    let file = [&file[..8], &png_chunk(b"IHDR", &header), &file[33..]].concat();
    for length in [file.len(), find_chunk(&file, b"IEND")] {
        let image = decode(&process(&file[..length], &recipe()).unwrap());
        assert_eq!(image.dimensions(), (8, 8));
        assert!(image.pixels().all(|pixel| pixel.0.iter().all(|&level| level > 250)), "{length} bytes");
    }
}

#[test]
fn png_with_a_wrong_checksum_of_a_chunk_with_pixels_is_read_if_the_pixels_are_intact() {
    let file = png_with_many_chunks();
    let first = find_chunk(&file, b"IDAT");
    let mut wrong_checksum = file.clone();
    wrong_checksum[first + 8 + 500] ^= 1;
    assert_quarters(&wrong_checksum, COLOURS, "first chunk");
    let end = find_chunk(&file, b"IEND");
    let mut wrong_checksum = file.clone();
    wrong_checksum[end - 1] ^= 1;
    assert_quarters(&wrong_checksum, COLOURS, "last chunk");

    // Changed pixels do not match their own checksum.
    let file = encode(test_image(), ImageFormat::Png);
    let (first, end) = (find_chunk(&file, b"IDAT"), find_chunk(&file, b"IEND"));
    for offset in (first + 10..end - 4).step_by(50) {
        let mut wrong_pixels = file.clone();
        wrong_pixels[offset] ^= 0x10;
        assert_corrupt(&wrong_pixels, &format!("changed byte {offset}"));
    }
    // The header and the palette must be intact.
    let rows = vec![vec![0b0001_1011; 100]; 300];
    let palette = [RED, GREEN, BLUE, YELLOW].map(|[red, green, blue]| [red, green, blue, 255]);
    let palette_file = palette_png(400, 2, &rows, &palette);
    let without_end = &palette_file[..find_chunk(&palette_file, b"IEND")];
    process(without_end, &recipe()).unwrap();
    for name in [b"IHDR", b"PLTE"] {
        let mut damaged = without_end.to_vec();
        damaged[find_chunk(without_end, name) + 10] ^= 1;
        assert_corrupt(&damaged, &format!("{name:?}"));
    }
}

#[test]
fn png_with_alpha_and_16_bits_is_read_without_its_end() {
    let image = RgbaImage::from_fn(400, 300, |x, _| Rgba([200, 0, 0, if x < 200 { 255 } else { 128 }]));
    let file = encode(image::DynamicImage::from(image).into_rgba16(), ImageFormat::Png);
    let (left, right) = ([200, 0, 0], [227, 127, 127]);
    assert_quarters(&file[..find_chunk(&file, b"IEND")], [left, right, left, right], "16 bits");
}

/// Returns the test image as a TIFF in RGB.
fn rgb_tiff(is_big_endian: bool) -> Tiff {
    Tiff {
        is_big_endian,
        size: (400, 300),
        photometric: 2,
        bits: 8,
        samples_per_pixel: 3,
        entries: Vec::new(),
        chunks: vec![test_image().into_raw()],
        tile_size: None,
    }
}

#[test]
fn tiff_whose_directories_form_a_circle_is_read() {
    for is_big_endian in [false, true] {
        let mut file = rgb_tiff(is_big_endian).write();
        let next_directory_offset = file.len() - 4;
        file.copy_within(4..8, next_directory_offset);
        assert_quarters(&file, COLOURS, &format!("big endian: {is_big_endian}"));
    }
}

#[test]
fn tiff_with_more_depths_than_samples_is_read_if_the_samples_have_the_same_depth() {
    for is_big_endian in [false, true] {
        let with_depths = |depths| rgb_tiff(is_big_endian).with(BITS_PER_SAMPLE, depths).write();
        assert_quarters(&with_depths(&[8, 8, 8, 1]), COLOURS, &format!("big endian: {is_big_endian}"));
        assert_corrupt(&with_depths(&[8, 8, 16, 8]), "a sample of another depth");
    }
}
