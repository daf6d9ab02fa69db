//! Writes JPEGs by hand and with an encoder, and damages them.

use image::{RgbImage, imageops::FilterType};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use resize::Channels;
use srgb::testing::{ConnectionSpace, TableType, table, write_profile};

use super::super::files::length16;
use crate::{support::read_sample, test_image::test_image};

// Markers, with their names in the JPEG standard.
pub(super) const SOI: [u8; 2] = [0xFF, 0xD8];
pub(super) const EOI: [u8; 2] = [0xFF, 0xD9];
pub(super) const BASELINE: u8 = 0xC0;
pub(super) const PROGRESSIVE: u8 = 0xC2;
pub(super) const ARITHMETIC: u8 = 0xC9;
pub(super) const DHT: u8 = 0xC4;
pub(super) const SOS: u8 = 0xDA;
pub(super) const DQT: u8 = 0xDB;
pub(super) const DNL: u8 = 0xDC;
pub(super) const DRI: u8 = 0xDD;
pub(super) const APP1: u8 = 0xE1;
pub(super) const APP2: u8 = 0xE2;
pub(super) const COM: u8 = 0xFE;

/// Writes a segment: a marker, the length and the payload.
pub(super) fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = length16(payload.len() + 2).to_be_bytes();
    [&[0xFF, marker], &length[..], payload].concat()
}

/// Writes a frame header. `factors` has one byte per component, with the horizontal sampling factor in the
/// upper and the vertical sampling factor in the lower four bits.
pub(super) fn frame_header(marker: u8, (width, height): (u16, u16), factors: &[u8]) -> Vec<u8> {
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
pub(super) fn scan(components: &[u8], (first, last): (u8, u8), approximation: u8, bits: &[u8]) -> Vec<u8> {
    let mut payload = vec![u8::try_from(components.len()).unwrap()];
    payload.extend(components.iter().flat_map(|&component| [component, 0]));
    payload.extend([first, last, approximation]);
    [segment(SOS, &payload), bits.to_vec()].concat()
}

/// Writes a quantization table of ones, and two Huffman tables with a single code word, the bit 0.
///
/// In the DC table, the code word means that the coefficient is the same as in the previous block. In the AC
/// table, the code word means the symbol `ac_symbol`.
pub(super) fn tables(ac_symbol: u8) -> Vec<u8> {
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
pub(super) const END_OF_BLOCK: u8 = 0;
/// The AC symbol that ends many blocks at once. Their number is 16,384 plus the number in the next 14 bits.
pub(super) const END_OF_BLOCK_RUN: u8 = 0xE0;

/// Writes a uniform grey baseline JPEG without subsampling.
///
/// Each block has two bits: the DC coefficient and the end of the block.
pub(super) fn uniform_grey(size: (u16, u16), component_count: u8) -> Vec<u8> {
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
pub(super) fn uniform_grey_in_scans((width, height): (u16, u16), component_ids: &[u8]) -> Vec<u8> {
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
pub(super) fn with_scan_count(size: (u16, u16), factors: &[u8], scan_count: usize) -> Vec<u8> {
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
pub(super) fn end_of_block_runs(block_count: usize) -> Vec<u8> {
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
pub(super) fn encode_test_image(configure: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    encode(&test_image(), configure)
}

pub(super) fn encode(image: &RgbImage, configure: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    configure(&mut encoder);
    let (width, height) = (image.width().try_into().unwrap(), image.height().try_into().unwrap());
    encoder.encode(image.as_raw(), width, height, ColorType::Rgb).unwrap();
    file
}

pub(super) fn enable_restarts(encoder: &mut Encoder<&mut Vec<u8>>) {
    encoder.set_restart_interval(4);
}

/// Returns the offset of the first segment with this marker.
pub(super) fn find_marker(file: &[u8], marker: u8) -> usize {
    file.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
}

/// Truncates a file to a percentage of its length.
pub(super) fn truncate(file: &[u8], percent: usize) -> Vec<u8> {
    file[..file.len() * percent / 100].to_vec()
}

/// Truncates a file as [`truncate`] does, and adds an end marker.
pub(super) fn truncate_and_end(file: &[u8], percent: usize) -> Vec<u8> {
    let mut truncated = truncate(file, percent);
    // If the last byte is the first half of a marker, the zeros separate it from the end marker.
    truncated.extend([0, 0]);
    truncated.extend(EOI);
    truncated
}

/// Inserts segments right after the start marker.
pub(super) fn with_segments(segments: &[u8], file: &[u8]) -> Vec<u8> {
    [&file[..2], segments, &file[2..]].concat()
}

/// Writes a segment with part `number` of an ICC profile that has `count` parts.
pub(super) fn profile_part(number: u8, count: u8, data: &[u8]) -> Vec<u8> {
    segment(APP2, &[b"ICC_PROFILE\0", &[number, count][..], data].concat())
}

/// Writes segments with the parts of an ICC profile.
pub(super) fn profile_segments(profile: &[u8]) -> Vec<u8> {
    let parts = profile.chunks(65_000);
    let count = u8::try_from(parts.len()).unwrap();
    (1..=count).zip(parts).flat_map(|(number, part)| profile_part(number, count, part)).collect()
}

/// Writes a CMYK profile whose table has 33 entries along each of its four axes. Its length is near the maximum.
pub(super) fn large_cmyk_profile() -> Vec<u8> {
    let mut table = table(Channels::Cmyk, TableType::Lut8, ConnectionSpace::Lab);
    table[10] = 33;
    table.extend(vec![128; 3 * 33_usize.pow(4)]);
    write_profile(Channels::Cmyk, ConnectionSpace::Lab, 2, &[(b"A2B0", table)])
}

/// Writes an EXIF block whose directory refers to itself.
pub(super) fn exif_with_directory_loop() -> Vec<u8> {
    let mut block = b"Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    // The entry contains the offset of an EXIF directory. This offset is that of the directory which contains
    // the entry.
    block.extend(*b"\x69\x87\x04\0\x01\0\0\0\x08\0\0\0");
    block.extend(*b"\x08\0\0\0");
    segment(APP1, &block)
}

/// Writes an EXIF block that declares 65,535 entries and ends before the first entry.
pub(super) fn exif_without_entries() -> Vec<u8> {
    segment(APP1, b"Exif\0\0MM\0*\0\0\0\x08\xFF\xFF")
}

/// Swaps the first two restart markers.
pub(super) fn swap_restarts(file: &[u8]) -> Vec<u8> {
    let (first, second) = (find_marker(file, 0xD0), find_marker(file, 0xD1));
    let mut swapped = file.to_vec();
    swapped.swap(first + 1, second + 1);
    swapped
}
