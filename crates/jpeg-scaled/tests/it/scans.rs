//! Writes files with several scans, and compares their pixels with those of the same coefficients in one
//! scan.

use std::collections::HashMap;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use jpeg_scaled::{Error, Scale};
use proptest::{prelude::*, sample::select, test_runner::TestRunner};

use crate::{
    files::{TestPicture, decode, proptest_config, segment_position, test_pictures, usual_picture},
    naive::{Coefficients, HuffmanTable, ParsedHeaders, max_blocks, read_coefficients},
};

/// Indices of the components of each scan.
pub(crate) type ScanOrder = &'static [&'static [usize]];

/// Every order of every division of three components into two or three scans.
pub(crate) const SCAN_ORDERS: [ScanOrder; 12] = [
    &[&[0], &[1], &[2]],
    &[&[0], &[2], &[1]],
    &[&[1], &[0], &[2]],
    &[&[1], &[2], &[0]],
    &[&[2], &[0], &[1]],
    &[&[2], &[1], &[0]],
    &[&[0, 1], &[2]],
    &[&[2], &[0, 1]],
    &[&[0, 2], &[1]],
    &[&[1], &[0, 2]],
    &[&[1, 2], &[0]],
    &[&[0], &[1, 2]],
];

/// Numbers of luminance blocks per MCU that `jpeg-encoder` supports, horizontally and vertically.
pub(crate) const SAMPLING_FACTORS: [(u8, u8); 8] =
    [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (2, 4)];

/// Appends bits to entropy-coded data.
#[derive(Default)]
pub(crate) struct BitWriter {
    pub(crate) bytes: Vec<u8>,
    /// The bits that do not fill a byte yet.
    bits: u32,
    bit_count: usize,
}

impl BitWriter {
    /// Writes the lowest `count` bits of `bits`.
    pub(crate) fn write(&mut self, bits: usize, count: usize) {
        for index in (0..count).rev() {
            self.bits = self.bits << 1 | u32::from(bits >> index & 1 == 1);
            self.bit_count += 1;
            if self.bit_count == 8 {
                let byte = u8::try_from(self.bits).unwrap();
                self.bytes.push(byte);
                if byte == 0xFF {
                    self.bytes.push(0);
                }
                (self.bits, self.bit_count) = (0, 0);
            }
        }
    }

    /// Writes ones up to the end of the byte.
    pub(crate) fn pad(&mut self) {
        while self.bit_count > 0 {
            self.write(1, 1);
        }
    }

    /// Writes ones up to the end of the byte, and the restart marker with index `index` among those of a scan.
    pub(crate) fn write_restart_marker(&mut self, index: usize) {
        self.pad();
        self.bytes.extend([0xFF, 0xD0 + u8::try_from(index % 8).unwrap()]);
    }

    /// Writes the code word of a symbol with `zero_count` zeros, and `value` after it.
    fn write_coded(&mut self, code_words: &CodeWords, zero_count: usize, value: i32) {
        let length = (u32::BITS - value.unsigned_abs().leading_zeros()) as usize;
        let (code_word_length, code_word) = code_words[&u8::try_from(zero_count << 4 | length).unwrap()];
        self.write(code_word, code_word_length);
        let bits = if value < 0 { value + (1 << length) - 1 } else { value };
        self.write(usize::try_from(bits).unwrap(), length);
    }
}

/// Length and bits of the code words, keyed by their symbols.
type CodeWords = HashMap<u8, (usize, usize)>;

fn invert(table: &HuffmanTable) -> CodeWords {
    table.iter().map(|(&code_word, &symbol)| (symbol, code_word)).collect()
}

/// Writes the entropy-coded data of a scan.
struct ScanWriter<'a> {
    headers: &'a ParsedHeaders,
    coefficients: &'a [Coefficients],
    dc_code_words: Vec<CodeWords>,
    ac_code_words: Vec<CodeWords>,
    writer: BitWriter,
    previous_dc: [i32; 3],
}

impl ScanWriter<'_> {
    fn write_block(&mut self, component_index: usize, column: usize, row: usize) {
        let Coefficients { blocks_across, blocks } = &self.coefficients[component_index];
        let block = &blocks[row * blocks_across + column];
        let table_index = usize::from(component_index > 0);
        let difference = block[0] - self.previous_dc[component_index];
        self.previous_dc[component_index] = block[0];
        self.writer.write_coded(&self.dc_code_words[table_index], 0, difference);
        let code_words = &self.ac_code_words[table_index];
        let mut zero_count = 0;
        for &coefficient in &block[1..] {
            if coefficient == 0 {
                zero_count += 1;
                continue;
            }
            for _ in 0..zero_count / 16 {
                self.writer.write_coded(code_words, 15, 0);
            }
            self.writer.write_coded(code_words, zero_count % 16, coefficient);
            zero_count = 0;
        }
        if zero_count > 0 {
            self.writer.write_coded(code_words, 0, 0);
        }
    }

    /// Writes the MCUs of a scan with the components `component_indices`.
    fn write(mut self, component_indices: &[usize], restart_interval: usize) -> Vec<u8> {
        let (max_across, max_down) = max_blocks(self.headers);
        let (width, height) = self.headers.size;
        // The MCU of a scan with a single component is one block, and no block lies outside the component.
        let (columns, rows) = match component_indices {
            &[only] => {
                let component = self.headers.components[only];
                (
                    (width * component.blocks_across).div_ceil(max_across).div_ceil(8),
                    (height * component.blocks_down).div_ceil(max_down).div_ceil(8),
                )
            }
            _ => self.headers.mcu_counts(),
        };
        for mcu in 0..columns * rows {
            if restart_interval > 0 && mcu > 0 && mcu % restart_interval == 0 {
                self.writer.write_restart_marker(mcu / restart_interval - 1);
                self.previous_dc = [0; 3];
            }
            let (mcu_column, mcu_row) = (mcu % columns, mcu / columns);
            for &index in component_indices {
                let (across, down) = match component_indices {
                    [_] => (1, 1),
                    _ => (
                        self.headers.components[index].blocks_across,
                        self.headers.components[index].blocks_down,
                    ),
                };
                for block in 0..across * down {
                    self.write_block(
                        index,
                        mcu_column * across + block % across,
                        mcu_row * down + block / across,
                    );
                }
            }
        }
        self.writer.pad();
        self.writer.bytes
    }
}

/// Returns a segment: a marker, the length and the payload.
pub(crate) fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 2).unwrap().to_be_bytes();
    [&[0xFF, marker], &length[..], payload].concat()
}

/// Returns the marker segments before the scan, each with its marker.
pub(crate) fn segments(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut position = 2;
    let mut segments = Vec::new();
    while position < segment_position(file, 0xDA) {
        let length = usize::from(u16::from_be_bytes([file[position + 2], file[position + 3]]));
        segments.push((file[position + 1], file[position + 4..position + 2 + length].to_vec()));
        position += 2 + length;
    }
    segments
}

/// Returns the entropy-coded data of `component_indices`, whose coefficients are those of `file`.
fn encode_scan(file: &[u8], component_indices: &[usize], restart_interval: u16) -> Vec<u8> {
    let (headers, coefficients) = read_coefficients(file);
    let writer = ScanWriter {
        headers: &headers,
        coefficients: &coefficients,
        dc_code_words: headers.dc_tables.iter().map(invert).collect(),
        ac_code_words: headers.ac_tables.iter().map(invert).collect(),
        writer: BitWriter::default(),
        previous_dc: [0; 3],
    };
    writer.write(component_indices, restart_interval.into())
}

/// Divides the scan of `file`, which has three components, into several scans.
///
/// If `restart_interval` is not 0, each scan has a restart interval of its own, which begins with
/// `restart_interval`.
pub(crate) fn with_scans(file: &[u8], scans: ScanOrder, restart_interval: u16) -> Vec<u8> {
    let frame = segment_position(file, 0xC0);
    let mut result = file[..2].to_vec();
    for (marker, payload) in segments(file).iter().filter(|(marker, _)| *marker != 0xDD) {
        result.extend(segment(*marker, payload));
    }
    for (component_indices, number) in scans.iter().zip(0..) {
        let restart_interval = if restart_interval > 0 { restart_interval + number } else { 0 };
        result.extend(segment(0xDD, &restart_interval.to_be_bytes()));
        let mut header = vec![u8::try_from(component_indices.len()).unwrap()];
        for &index in *component_indices {
            header.extend([file[frame + 10 + 3 * index], if index > 0 { 0x11 } else { 0 }]);
        }
        header.extend([0, 63, 0]);
        result.extend(segment(0xDA, &header));
        result.extend(encode_scan(file, component_indices, restart_interval));
    }
    result.extend(b"\xFF\xD9");
    result
}

/// Divides the scan of `file` into a scan per component, in the order `component_indices`.
///
/// All components have the same table numbers, and the tables are replaced before each scan.
fn with_replaced_tables(file: &[u8], component_indices: [usize; 3]) -> Vec<u8> {
    let frame = segment_position(file, 0xC0);
    let mut result = file[..2].to_vec();
    for (marker, mut payload) in segments(file) {
        if marker == 0xC0 {
            (payload[8], payload[11], payload[14]) = (3, 3, 3);
        }
        if !matches!(marker, 0xC4 | 0xDB) {
            result.extend(segment(marker, &payload));
        }
    }
    for index in component_indices {
        let number = u8::from(index > 0);
        for (marker, mut payload) in segments(file) {
            if matches!(marker, 0xC4 | 0xDB) && payload[0] & 15 == number {
                payload[0] = payload[0] & 0xF0 | 3;
                result.extend(segment(marker, &payload));
            }
        }
        result.extend(segment(0xDA, &[1, file[frame + 10 + 3 * index], 0x33, 0, 63, 0]));
        result.extend(encode_scan(file, &[index], 0));
    }
    result.extend(b"\xFF\xD9");
    result
}

fn last_scan_position(file: &[u8]) -> usize {
    file.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap()
}

/// Returns `file` without its last scan.
pub(crate) fn without_last_scan(file: &[u8]) -> Vec<u8> {
    [&file[..last_scan_position(file)], b"\xFF\xD9"].concat()
}

/// Returns `file` with its last scan twice.
pub(crate) fn with_last_scan_twice(file: &[u8]) -> Vec<u8> {
    [&file[..file.len() - 2], &file[last_scan_position(file)..]].concat()
}

/// Encodes the picture with one scan per component, which `jpeg-encoder` writes if it optimises the tables or
/// if a sampling factor is 4.
///
/// Ignores the restart interval if the tables are optimised, because `jpeg-encoder` 0.7 then panics.
pub(crate) fn encode_without_interleaving(test_picture: &TestPicture, (across, down): (u8, u8)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, test_picture.quality);
    encoder.set_sampling_factor(SamplingFactor::from_factors(across, down).unwrap());
    if across.max(down) < 4 {
        encoder.set_optimized_huffman_tables(true);
    } else {
        encoder.set_restart_interval(test_picture.restart_interval);
    }
    encoder.encode(&test_picture.draw(), test_picture.width, test_picture.height, ColorType::Rgb).unwrap();
    file
}

#[test]
fn picture_in_several_scans_has_the_pixels_of_the_same_coefficients_in_one_scan() {
    TestRunner::new(proptest_config(1000))
        .run(&(test_pictures(), select(&SCAN_ORDERS[..])), |(test_picture, scans)| {
            prop_assume!(test_picture.sampling.is_some());
            let one_scan = test_picture.encode_in_one_scan();
            let several_scans = with_scans(&one_scan, scans, test_picture.restart_interval);
            for scale in Scale::ALL {
                prop_assert!(decode(&several_scans, scale) == decode(&one_scan, scale), "{scale:?}");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn file_of_jpeg_encoder_with_a_scan_per_component_has_the_pixels_of_its_interleaved_file() {
    // `jpeg-encoder` never interleaves components if a sampling factor is 4.
    for sampling in SAMPLING_FACTORS.into_iter().filter(|&(across, down)| across.max(down) < 4) {
        for (width, height) in [(45, 37), (16, 16), (17, 8), (1, 1), (8, 33), (31, 47)] {
            let test_picture = TestPicture { width, height, sampling: Some(sampling), ..usual_picture() };
            let file = encode_without_interleaving(&test_picture, sampling);
            for scale in Scale::ALL {
                assert!(
                    decode(&file, scale).unwrap() == decode(&test_picture.encode(), scale).unwrap(),
                    "{test_picture:?} at {scale:?}"
                );
            }
        }
    }
}

#[test]
fn every_scan_uses_the_tables_that_precede_it() {
    let file = usual_picture().encode();
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let replaced = with_replaced_tables(&file, order);
        for scale in Scale::ALL {
            assert_eq!(decode(&replaced, scale).unwrap(), decode(&file, scale).unwrap());
        }
    }
}

#[test]
fn blocks_per_mcu_are_limited_only_in_scans_with_several_components() {
    let test_picture = TestPicture { sampling: Some((1, 1)), ..usual_picture() };
    let one_scan = test_picture.encode();
    // With the same factors for all components, none of them is subsampled.
    let with_large_factors = |mut file: Vec<u8>| {
        let frame = segment_position(&file, 0xC0);
        (file[frame + 11], file[frame + 14], file[frame + 17]) = (0x44, 0x44, 0x44);
        file
    };
    let several_scans = with_large_factors(with_scans(&one_scan, &[&[0], &[1], &[2]], 0));
    for scale in Scale::ALL {
        assert_eq!(decode(&several_scans, scale).unwrap(), decode(&one_scan, scale).unwrap());
        let refused = decode(&with_large_factors(with_scans(&one_scan, &[&[0], &[1, 2]], 0)), scale);
        assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    }
}

#[test]
fn missing_scan_is_refused_as_truncated_and_repeated_scan_as_corrupt() {
    let one_scan = usual_picture().encode();
    for scans in SCAN_ORDERS {
        let file = with_scans(&one_scan, scans, 0);
        let missing = without_last_scan(&file);
        // The first scan again, before the last scan.
        let first_scan = segment_position(&file, 0xDA);
        let second_scan =
            first_scan + 2 + file[first_scan + 2..].windows(2).position(|pair| pair == [0xFF, 0xDD]).unwrap();
        let repeated = [&file[..second_scan], &file[first_scan..second_scan], &file[second_scan..]].concat();
        for scale in Scale::ALL {
            assert_eq!(decode(&missing, scale), Err(Error::Truncated), "{scans:?}");
            assert_eq!(decode(&missing[..missing.len() - 2], scale), Err(Error::Truncated), "{scans:?}");
            let refused = decode(&repeated, scale);
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{scans:?}: {refused:?}");
            let refused = decode(&with_last_scan_twice(&file), scale);
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{scans:?}: {refused:?}");
        }
    }
}

#[test]
fn components_of_a_scan_in_another_order_are_decoded() {
    // Both components have the same sampling, so that their blocks can change places.
    let file = with_scans(&usual_picture().encode(), &[&[0], &[1, 2]], 0);
    let frame = segment_position(&file, 0xC0);
    let mut swapped = file.clone();
    let scan = last_scan_position(&file);
    for position in [frame + 13, scan + 5] {
        let distance = if position > scan { 2 } else { 3 };
        swapped.swap(position, position + distance);
    }
    // The scan begins with the component that is now the third one.
    let mut expected = Vec::new();
    for scale in Scale::ALL {
        expected.push(decode(&file, scale).unwrap());
        assert_eq!(decode(&swapped, scale), decode(&file, scale));
    }
    let mut colours_swapped = file.clone();
    colours_swapped.swap(scan + 5, scan + 7);
    for (scale, expected) in Scale::ALL.into_iter().zip(expected) {
        assert_ne!(decode(&colours_swapped, scale).unwrap(), expected);
    }
}

#[test]
fn a_few_bytes_between_scans_are_ignored_and_many_are_refused_as_corrupt() {
    let file = with_scans(&usual_picture().encode(), &[&[0], &[1, 2]], 0);
    let scan = last_scan_position(&file) - 6;
    assert_eq!(file[scan..scan + 2], [0xFF, 0xDD]);
    for scale in Scale::ALL {
        let with_bytes = |count| [&file[..scan], &vec![7; count][..], &file[scan..]].concat();
        assert_eq!(decode(&with_bytes(4), scale), decode(&file, scale));
        assert!(matches!(decode(&with_bytes(9), scale), Err(Error::Corrupt(_))));
    }
}
