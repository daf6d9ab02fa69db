//! Hostile JPEGs. Most of them are written by hand, with Huffman tables that make zero bits valid pixels.

use image::{RgbImage, imageops::FilterType};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use resize::Channels;
use srgb::testing::{ConnectionSpace, TableType, table, write_profile};

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, length16, noise,
};
use crate::{support::read_sample, test_image::test_image};

// Markers, with their names in the JPEG standard.
const SOI: [u8; 2] = [0xFF, 0xD8];
const EOI: [u8; 2] = [0xFF, 0xD9];
const BASELINE: u8 = 0xC0;
const PROGRESSIVE: u8 = 0xC2;
const ARITHMETIC: u8 = 0xC9;
const DHT: u8 = 0xC4;
const SOS: u8 = 0xDA;
const DQT: u8 = 0xDB;
const DNL: u8 = 0xDC;
const DRI: u8 = 0xDD;
const APP1: u8 = 0xE1;
const APP2: u8 = 0xE2;
const COM: u8 = 0xFE;

/// Writes a segment: a marker, the length and the payload.
fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = length16(payload.len() + 2).to_be_bytes();
    [&[0xFF, marker], &length[..], payload].concat()
}

/// Writes a frame header. `factors` has one byte per component, with the horizontal sampling factor in the
/// upper and the vertical sampling factor in the lower four bits.
fn frame_header(marker: u8, (width, height): (u16, u16), factors: &[u8]) -> Vec<u8> {
    let mut payload = vec![8];
    payload.extend(height.to_be_bytes());
    payload.extend(width.to_be_bytes());
    payload.push(u8::try_from(factors.len()).unwrap());
    for (number, &factor) in (1..).zip(factors) {
        payload.extend([number, factor, 0]);
    }
    segment(marker, &payload)
}

/// Writes a scan that contains the coefficients `first` to `last` of these components. `bits` are the encoded
/// coefficients.
///
/// `approximation` is the parameter for successive approximation.
fn scan(components: &[u8], (first, last): (u8, u8), approximation: u8, bits: &[u8]) -> Vec<u8> {
    let mut payload = vec![u8::try_from(components.len()).unwrap()];
    payload.extend(components.iter().flat_map(|&component| [component, 0]));
    payload.extend([first, last, approximation]);
    [segment(SOS, &payload), bits.to_vec()].concat()
}

/// Writes a quantization table of ones, and two Huffman tables with a single code word, the bit 0.
///
/// In the DC table, the code word means that the coefficient is the same as in the previous block. In the AC
/// table, the code word means the symbol `ac_symbol`.
fn tables(ac_symbol: u8) -> Vec<u8> {
    let quantization = [&[0][..], &[1; 64]].concat();
    let huffman_table = |class: u8, symbol: u8| [&[class, 1][..], &[0; 15], &[symbol]].concat();
    [
        segment(DQT, &quantization),
        segment(DHT, &huffman_table(0, 0)),
        segment(DHT, &huffman_table(0x10, ac_symbol)),
    ]
    .concat()
}

/// The AC symbol that ends a block.
const END_OF_BLOCK: u8 = 0;
/// The AC symbol that ends many blocks at once. Their number is 16,384 plus the number in the next 14 bits.
const END_OF_BLOCK_RUN: u8 = 0xE0;

/// Writes a uniform grey baseline JPEG without subsampling.
///
/// Each block has two bits: the DC coefficient and the end of the block.
fn uniform_grey(size: (u16, u16), component_count: u8) -> Vec<u8> {
    let blocks_per_component = usize::from(size.0).div_ceil(8) * usize::from(size.1).div_ceil(8);
    let block_count = blocks_per_component * usize::from(component_count);
    let factors = vec![0x11; component_count.into()];
    let component_ids: Vec<u8> = (1..=component_count).collect();
    let bits = vec![0; (2 * block_count).div_ceil(8)];
    let head = [&SOI[..], &tables(END_OF_BLOCK), &frame_header(BASELINE, size, &factors)].concat();
    [head, scan(&component_ids, (0, 63), 0, &bits), EOI.to_vec()].concat()
}

/// Writes a uniform grey baseline JPEG with three components and 4:2:0 subsampling, and a scan for each of
/// `component_ids`.
fn uniform_grey_in_scans((width, height): (u16, u16), component_ids: &[u8]) -> Vec<u8> {
    let mut file =
        [&SOI[..], &tables(END_OF_BLOCK), &frame_header(BASELINE, (width, height), &[0x22, 0x11, 0x11])]
            .concat();
    for &component in component_ids {
        let block_side = if component == 1 { 8 } else { 16 };
        let block_count = usize::from(width).div_ceil(block_side) * usize::from(height).div_ceil(block_side);
        file.extend(scan(&[component], (0, 63), 0, &vec![0; (2 * block_count).div_ceil(8)]));
    }
    file.extend(EOI);
    file
}

/// Writes a progressive JPEG with `scan_count` scans.
///
/// The first scan contains the DC coefficients. The other scans contain only zeros: one scan for each component
/// but the first, and further scans for the coefficients of the first component, which must have the largest
/// sampling factors. Above 64 scans, the scans repeat coefficients, which is not allowed.
fn with_scan_count(size: (u16, u16), factors: &[u8], scan_count: usize) -> Vec<u8> {
    let [width, height] = [size.0, size.1].map(usize::from);
    let max_factor = usize::from(factors[0] & 15);
    let mcu_count = width.div_ceil(8 * max_factor) * height.div_ceil(8 * max_factor);
    let blocks_per_mcu: usize =
        factors.iter().map(|&factor| usize::from(factor >> 4) * usize::from(factor & 15)).sum();
    let component_ids: Vec<u8> = (1..).take(factors.len()).collect();
    let dc_bits = vec![0; (mcu_count * blocks_per_mcu).div_ceil(8)];
    let empty_scan = |component: u8, band: (u8, u8)| {
        let subsampling = if component == 1 { 1 } else { max_factor };
        let block_count = width.div_ceil(8 * subsampling) * height.div_ceil(8 * subsampling);
        scan(&[component], band, 0, &end_of_block_runs(block_count))
    };
    let mut file = [&SOI[..], &tables(END_OF_BLOCK_RUN), &frame_header(PROGRESSIVE, size, factors)].concat();
    file.extend(scan(&component_ids, (0, 0), 0, &dc_bits));
    component_ids.iter().skip(1).for_each(|&component| file.extend(empty_scan(component, (1, 63))));
    let remaining_count = u8::try_from((scan_count - component_ids.len()).min(63)).unwrap();
    for position in 1..remaining_count {
        file.extend(empty_scan(1, (position, position)));
    }
    let last_scan = empty_scan(1, (remaining_count, 63));
    file.extend(last_scan.repeat(1 + scan_count - component_ids.len() - usize::from(remaining_count)));
    file.extend(EOI);
    file
}

/// Encodes runs of blocks without coefficients. Each run is a code word of one bit and 14 bits, which contain
/// the length of the run minus 16,384.
fn end_of_block_runs(block_count: usize) -> Vec<u8> {
    const MIN_RUN: usize = 1 << 14;
    const MAX_RUN: usize = 2 * MIN_RUN - 1;
    let run_count = block_count.div_ceil(MAX_RUN);
    let mut bits = Vec::new();
    for index in 0..run_count {
        let run = (block_count + index) / run_count;
        bits.push(0);
        bits.extend((0..14).rev().map(|bit| u8::try_from(run.saturating_sub(MIN_RUN) >> bit & 1).unwrap()));
    }
    let byte = |bits: &[u8]| bits.iter().fold(0, |byte, &bit| byte << 1 | bit) << (8 - bits.len());
    let bytes = bits.chunks(8).map(byte);
    // A zero byte after 0xFF distinguishes it from a marker.
    bytes.flat_map(|byte: u8| if byte == 0xFF { vec![byte, 0] } else { vec![byte] }).collect()
}

/// Resizes a sample photo to `width` × `height` pixels, and encodes it with 4:2:0 subsampling as cameras do.
pub(crate) fn photo(width: u32, height: u32) -> Vec<u8> {
    let photo = image::load_from_memory(&read_sample("coffee.jpg")).unwrap().into_rgb8();
    encode(&image::imageops::resize(&photo, width, height, FilterType::Triangle), |_| {})
}

/// Encodes the test image, after `configure` has changed the settings of the encoder.
fn encode_test_image(configure: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    encode(&test_image(), configure)
}

fn encode(image: &RgbImage, configure: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    configure(&mut encoder);
    let (width, height) = (image.width().try_into().unwrap(), image.height().try_into().unwrap());
    encoder.encode(image.as_raw(), width, height, ColorType::Rgb).unwrap();
    file
}

fn enable_restarts(encoder: &mut Encoder<&mut Vec<u8>>) {
    encoder.set_restart_interval(4);
}

/// Returns the offset of the first segment with this marker.
fn find_marker(file: &[u8], marker: u8) -> usize {
    file.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
}

/// Truncates a file to a percentage of its length.
fn truncate(file: &[u8], percent: usize) -> Vec<u8> {
    file[..file.len() * percent / 100].to_vec()
}

/// Truncates a file as [`truncate`] does, and adds an end marker.
fn truncate_and_end(file: &[u8], percent: usize) -> Vec<u8> {
    let mut truncated = truncate(file, percent);
    // If the last byte is the first half of a marker, the zeros separate it from the end marker.
    truncated.extend([0, 0]);
    truncated.extend(EOI);
    truncated
}

/// Inserts segments right after the start marker.
fn with_segments(segments: &[u8], file: &[u8]) -> Vec<u8> {
    [&file[..2], segments, &file[2..]].concat()
}

/// Writes a segment with part `number` of an ICC profile that has `count` parts.
fn profile_part(number: u8, count: u8, data: &[u8]) -> Vec<u8> {
    segment(APP2, &[b"ICC_PROFILE\0", &[number, count][..], data].concat())
}

/// Writes segments with the parts of an ICC profile.
fn profile_segments(profile: &[u8]) -> Vec<u8> {
    let parts = profile.chunks(65_000);
    let count = u8::try_from(parts.len()).unwrap();
    (1..=count).zip(parts).flat_map(|(number, part)| profile_part(number, count, part)).collect()
}

/// Writes a CMYK profile whose table has 33 entries along each of its four axes. Its length is near the maximum.
fn large_cmyk_profile() -> Vec<u8> {
    let mut table = table(Channels::Cmyk, TableType::Lut8, ConnectionSpace::Lab);
    table[10] = 33;
    table.extend(vec![128; 3 * 33_usize.pow(4)]);
    write_profile(Channels::Cmyk, ConnectionSpace::Lab, 2, &[(b"A2B0", table)])
}

/// Writes an EXIF block whose directory refers to itself.
fn exif_with_directory_loop() -> Vec<u8> {
    let mut block = b"Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    // The entry contains the offset of an EXIF directory. This offset is that of the directory which contains
    // the entry.
    block.extend(*b"\x69\x87\x04\0\x01\0\0\0\x08\0\0\0");
    block.extend(*b"\x08\0\0\0");
    segment(APP1, &block)
}

/// Writes an EXIF block that declares 65,535 entries and ends before the first entry.
fn exif_without_entries() -> Vec<u8> {
    segment(APP1, b"Exif\0\0MM\0*\0\0\0\x08\xFF\xFF")
}

pub(super) fn files() -> Vec<HostileFile> {
    let valid_file = encode_test_image(|_| {});
    let progressive = encode_test_image(|encoder| encoder.set_progressive(true));
    let restarts = encode_test_image(enable_restarts);
    let rocket = read_sample("rocket.jpg");
    let frame_offset = find_marker(&valid_file, BASELINE);
    let scan_offset = find_marker(&valid_file, SOS);
    let last_scan_offset = progressive.windows(2).rposition(|pair| pair == [0xFF, SOS]).unwrap();
    let mut without_height = valid_file.clone();
    without_height[frame_offset + 5..frame_offset + 7].copy_from_slice(&[0, 0]);
    let mut height_after_pixels = without_height[..without_height.len() - 2].to_vec();
    height_after_pixels.extend(segment(DNL, &300u16.to_be_bytes()));
    height_after_pixels.extend(EOI);
    let mut without_width = valid_file.clone();
    without_width[frame_offset + 7..frame_offset + 9].copy_from_slice(&[0, 0]);

    vec![
        // Decompression bombs.
        hostile_file("jpeg-64-megapixels-in-700-kb", Processed, uniform_grey((8000, 8000), 3)),
        hostile_file("jpeg-grey-64-megapixels", Processed, uniform_grey((8000, 8000), 1)),
        hostile_file("jpeg-cmyk-64-megapixels", Processed, uniform_grey((8000, 8000), 4)),
        hostile_file("jpeg-cmyk-with-a-table-of-3-mebibytes", Processed, {
            with_segments(&profile_segments(&large_cmyk_profile()), &uniform_grey((640, 480), 4))
        }),
        hostile_file(
            "jpeg-65-megapixels",
            RefusedBeforeDecoding("too_many_pixels"),
            uniform_grey((8000, 8125), 3),
        ),
        hostile_file("jpeg-one-row", Processed, uniform_grey((16_384, 1), 3)),
        hostile_file("jpeg-one-column", Processed, uniform_grey((1, 16_384), 3)),
        hostile_file(
            "jpeg-side-too-long",
            RefusedBeforeDecoding("side_too_long"),
            uniform_grey((16_385, 1), 3),
        ),
        hostile_file("jpeg-header-of-64250-squared", RefusedBeforeDecoding("side_too_long"), {
            [&SOI[..], &frame_header(PROGRESSIVE, (64_250, 64_250), &[0x11; 3]), &EOI].concat()
        }),
        hostile_file(
            "jpeg-progressive-26-megapixels-32-scans",
            Processed,
            with_scan_count((6240, 4160), &[0x11; 3], 32),
        ),
        hostile_file(
            "jpeg-progressive-30-megapixels-subsampled",
            Processed,
            with_scan_count((6000, 5000), &[0x22, 0x11, 0x11], 10),
        ),
        hostile_file(
            "jpeg-2000-scans",
            RefusedBeforeDecoding("too_many_scans"),
            with_scan_count((4000, 4000), &[0x11; 3], 2000),
        ),
        hostile_file(
            "jpeg-5000-scans",
            RefusedBeforeDecoding("too_many_pixels"),
            with_scan_count((8000, 8000), &[0x11; 3], 5000),
        ),
        hostile_file(
            "jpeg-33-scans-of-one-block",
            RefusedBeforeDecoding("too_many_scans"),
            with_scan_count((8, 8), &[0x11], 33),
        ),
        // Baseline JPEGs in several scans, which jpeg-scaled decodes.
        hostile_file("jpeg-scans-50-megapixels", Processed, uniform_grey_in_scans((8000, 6250), &[3, 1, 2])),
        hostile_file(
            "jpeg-scans-decoded-at-full-size",
            Processed,
            uniform_grey_in_scans((16_384, 1000), &[1, 2, 3]),
        ),
        hostile_file("jpeg-scans-one-row", Processed, uniform_grey_in_scans((16_384, 1), &[1, 2, 3])),
        hostile_file("jpeg-scans-one-column", Processed, uniform_grey_in_scans((1, 16_384), &[1, 2, 3])),
        hostile_file(
            "jpeg-scans-component-missing",
            RefusedByDecoder("corrupt_image"),
            uniform_grey_in_scans((64, 64), &[1, 3, 1]),
        ),
        hostile_file(
            "jpeg-scans-component-twice",
            RefusedByDecoder("corrupt_image"),
            uniform_grey_in_scans((64, 64), &[1, 2, 1, 3]),
        ),
        hostile_file("jpeg-scans-after-a-scan-of-all-components", RefusedByDecoder("corrupt_image"), {
            let end = valid_file.len() - 2;
            [&valid_file[..end], &scan(&[1], (0, 63), 0, &[0; 64]), &EOI].concat()
        }),
        hostile_file("jpeg-scans-truncated", RefusedByDecoder("corrupt_image"), {
            let whole = uniform_grey_in_scans((640, 480), &[1, 2, 3]);
            [&whole[..whole.len() - 52], &EOI].concat()
        }),
        hostile_file("jpeg-scans-bytes-in-between", RefusedByDecoder("corrupt_image"), {
            let mut file = uniform_grey_in_scans((64, 64), &[1, 2, 3]);
            let second_scan = file.windows(2).rposition(|pair| pair == [0xFF, SOS]).unwrap();
            file.splice(second_scan..second_scan, [7; 40]);
            file
        }),
        hostile_file("jpeg-frame-of-255-components", RefusedBeforeDecoding("corrupt_image"), {
            let mut payload = vec![8, 0, 8, 0, 8, 255];
            payload.extend([1, 0x11, 0]);
            [&SOI[..], &segment(BASELINE, &payload), &EOI].concat()
        }),
        hostile_file("jpeg-sampling-factor-15", RefusedByDecoder("corrupt_image"), {
            [
                &SOI[..],
                &tables(END_OF_BLOCK),
                &frame_header(PROGRESSIVE, (64, 64), &[0xFF, 0x11, 0x11]),
                &scan(&[1, 2, 3], (0, 0), 0, &[0; 64]),
                &[1, 2, 3].map(|component| scan(&[component], (1, 63), 0, &[0; 64])).concat(),
                &EOI,
            ]
            .concat()
        }),
        hostile_file("jpeg-arithmetic-coding", RefusedByDecoder("unsupported_format"), {
            [
                &SOI[..],
                &tables(END_OF_BLOCK),
                &frame_header(ARITHMETIC, (64, 64), &[0x11; 3]),
                &scan(&[1, 2, 3], (0, 63), 0, &[0; 64]),
                &EOI,
            ]
            .concat()
        }),
        hostile_file("jpeg-without-huffman-tables", Processed, {
            let tables_offset = find_marker(&valid_file, DHT);
            [&valid_file[..tables_offset], &valid_file[scan_offset..]].concat()
        }),
        // Metadata.
        hostile_file(
            "jpeg-19-mb-of-comments",
            Processed,
            with_segments(&segment(COM, &[7; 65_533]).repeat(290), &valid_file),
        ),
        hostile_file("jpeg-profile-of-16-mb", Processed, {
            let parts: Vec<u8> =
                (1..=250).flat_map(|number| profile_part(number, 250, &[7; 65_000])).collect();
            with_segments(&parts, &valid_file)
        }),
        hostile_file(
            "jpeg-profile-of-noise",
            Processed,
            with_segments(&profile_part(1, 1, &noise(3000)), &valid_file),
        ),
        hostile_file("jpeg-profile-with-a-missing-part", Processed, {
            with_segments(&[profile_part(1, 3, b"ab"), profile_part(3, 3, b"cd")].concat(), &valid_file)
        }),
        hostile_file(
            "jpeg-exif-directory-loop",
            Processed,
            with_segments(&exif_with_directory_loop(), &valid_file),
        ),
        hostile_file(
            "jpeg-exif-without-its-entries",
            Processed,
            with_segments(&exif_without_entries(), &valid_file),
        ),
        hostile_file(
            "jpeg-two-exif-segments",
            Processed,
            with_segments(&[exif_with_directory_loop(), exif_without_entries()].concat(), &valid_file),
        ),
        hostile_file("jpeg-image-in-its-exif", Processed, {
            let small = encode(&RgbImage::new(16, 16), |_| {});
            with_segments(&segment(APP1, &[b"Exif\0\0II*\0\x08\0\0\0\0\0", &small[..]].concat()), &valid_file)
        }),
        hostile_file("jpeg-fill-bytes", Processed, with_segments(&[0xFF; 100_000], &valid_file)),
        hostile_file(
            "jpeg-segment-of-length-0",
            RefusedByDecoder("corrupt_image"),
            with_segments(&[0xFF, COM, 0, 0], &valid_file),
        ),
        // Truncated and concatenated files.
        hostile_file(
            "jpeg-truncated-in-its-header",
            RefusedBeforeDecoding("corrupt_image"),
            valid_file[..frame_offset + 4].to_vec(),
        ),
        hostile_file("jpeg-truncated-in-its-tables", RefusedBeforeDecoding("corrupt_image"), {
            valid_file[..find_marker(&valid_file, DHT) + 9].to_vec()
        }),
        hostile_file(
            "jpeg-truncated-in-its-pixels",
            RefusedByDecoder("corrupt_image"),
            truncate(&rocket, 50),
        ),
        hostile_file("jpeg-without-its-end-marker", Processed, rocket[..rocket.len() - 2].to_vec()),
        hostile_file("jpeg-large-truncated-with-end-marker", RefusedByDecoder("corrupt_image"), {
            // The photo is large enough to be scaled down while it is decoded.
            truncate_and_end(&photo(1600, 1200), 60)
        }),
        hostile_file(
            "jpeg-truncated-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&rocket, 50),
        ),
        hostile_file(
            "jpeg-truncated-near-its-end-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&rocket, 90),
        ),
        hostile_file(
            "jpeg-truncated-between-restarts-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&restarts, 70),
        ),
        hostile_file(
            "jpeg-progressive-truncated-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&progressive, 50),
        ),
        hostile_file("jpeg-progressive-without-its-last-scan", Processed, {
            [&progressive[..last_scan_offset], &EOI].concat()
        }),
        hostile_file("jpeg-progressive-truncated-in-its-last-scan", RefusedByDecoder("corrupt_image"), {
            let middle = (last_scan_offset + progressive.len()) / 2;
            [&progressive[..middle], &[0, 0], &EOI].concat()
        }),
        hostile_file("jpeg-without-the-scan-of-the-last-component", RefusedByDecoder("corrupt_image"), {
            let bits = [0; 2];
            let scans = [1, 2].map(|component| scan(&[component], (0, 63), 0, &bits)).concat();
            let head =
                [&SOI[..], &tables(END_OF_BLOCK), &frame_header(BASELINE, (16, 16), &[0x11; 3])].concat();
            [head, scans, EOI.to_vec()].concat()
        }),
        hostile_file("jpeg-without-pixels", RefusedByDecoder("corrupt_image"), {
            // The header of a scan with three components has 14 bytes.
            [&valid_file[..scan_offset + 14], &EOI].concat()
        }),
        hostile_file("jpeg-trailing-noise", Processed, [&valid_file[..], &noise(50_000)].concat()),
        hostile_file("jpeg-followed-by-another-jpeg", Processed, [&valid_file[..], &progressive].concat()),
        hostile_file(
            "jpeg-two-start-markers",
            RefusedByDecoder("corrupt_image"),
            [&SOI[..], &valid_file].concat(),
        ),
        hostile_file("jpeg-two-frames", RefusedBeforeDecoding("corrupt_image"), {
            [
                &valid_file[..scan_offset],
                &frame_header(BASELINE, (16, 16), &[0x11; 3]),
                &valid_file[scan_offset..],
            ]
            .concat()
        }),
        hostile_file("jpeg-without-a-frame", RefusedBeforeDecoding("corrupt_image"), {
            [&valid_file[..frame_offset], &valid_file[scan_offset..]].concat()
        }),
        // Sizes and restarts.
        hostile_file("jpeg-zero-height", RefusedBeforeDecoding("corrupt_image"), without_height),
        hostile_file(
            "jpeg-height-after-the-pixels",
            RefusedBeforeDecoding("corrupt_image"),
            height_after_pixels,
        ),
        hostile_file("jpeg-zero-width", RefusedBeforeDecoding("corrupt_image"), without_width),
        hostile_file(
            "jpeg-restarts-in-the-wrong-order",
            RefusedByDecoder("corrupt_image"),
            swap_restarts(&restarts),
        ),
        hostile_file("jpeg-undeclared-restarts", RefusedByDecoder("corrupt_image"), {
            let offset = find_marker(&restarts, DRI);
            [&restarts[..offset], &restarts[offset + 6..]].concat()
        }),
        hostile_file(
            "jpeg-declared-restarts-are-missing",
            RefusedByDecoder("corrupt_image"),
            with_segments(&segment(DRI, &[0, 1]), &valid_file),
        ),
    ]
}

/// Swaps the first two restart markers.
fn swap_restarts(file: &[u8]) -> Vec<u8> {
    let (first, second) = (find_marker(file, 0xD0), find_marker(file, 0xD1));
    let mut swapped = file.to_vec();
    swapped.swap(first + 1, second + 1);
    swapped
}
