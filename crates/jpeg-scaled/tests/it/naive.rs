//! Decodes a file by the standard's definitions in floating point, without optimisation or rounding.

use std::{
    collections::HashMap,
    f64::consts::{PI, SQRT_2},
};

use crate::files::{entropy_coded_start, segment_position};

/// Computes the row and column of each coefficient in zigzag order.
fn zigzag_order() -> Vec<(usize, usize)> {
    let mut order: Vec<(usize, usize)> = (0..64).map(|index| (index / 8, index % 8)).collect();
    order.sort_by_key(|&(row, column)| {
        let diagonal = row + column;
        (diagonal, if diagonal % 2 == 0 { column } else { row })
    });
    order
}

#[derive(Clone, Copy)]
pub(crate) struct Component {
    /// Number of blocks per MCU in the horizontal direction.
    pub(crate) blocks_across: usize,
    /// Number of blocks per MCU in the vertical direction.
    pub(crate) blocks_down: usize,
    /// Index of the component's quantisation table.
    quantization_table_index: usize,
}

/// Reads bits of the entropy-coded data.
struct BitReader<'a> {
    bytes: &'a [u8],
    /// Index of the current byte.
    position: usize,
    /// Number of bits of the current byte that were read.
    bits_read: u32,
}

impl BitReader<'_> {
    fn read_bit(&mut self) -> usize {
        let bit = self.bytes[self.position] >> (7 - self.bits_read) & 1;
        self.bits_read += 1;
        if self.bits_read == 8 {
            self.bits_read = 0;
            self.position += if self.bytes[self.position] == 0xFF { 2 } else { 1 };
        }
        usize::from(bit)
    }

    /// Reads the value after a code word. The value has `length` bits.
    fn read_value(&mut self, length: u32) -> i32 {
        let value = (0..length).fold(0, |value, _| value << 1 | i32::try_from(self.read_bit()).unwrap());
        if length > 0 && value < 1 << (length - 1) { value - (1 << length) + 1 } else { value }
    }

    fn read_symbol(&mut self, table: &HuffmanTable) -> u8 {
        let (mut length, mut code_word) = (0, 0);
        loop {
            (length, code_word) = (length + 1, code_word << 1 | self.read_bit());
            if let Some(&symbol) = table.get(&(length, code_word)) {
                return symbol;
            }
        }
    }

    /// Skips the rest of the current byte and the restart marker after it.
    fn skip_restart_marker(&mut self) {
        if self.bits_read > 0 {
            self.bits_read = 0;
            self.position += if self.bytes[self.position] == 0xFF { 2 } else { 1 };
        }
        self.position += 2;
    }
}

/// Symbols, keyed by the length and the bits of their code words.
pub(crate) type HuffmanTable = HashMap<(usize, usize), u8>;

/// The contents of a file's segments.
///
/// The decoder assumes that the first component uses the first DC table and the first AC table, and that the
/// other components use the second tables. This is true for all files that the tests encode.
pub(crate) struct ParsedHeaders {
    /// Width and height in pixels.
    pub(crate) size: (usize, usize),
    pub(crate) components: Vec<Component>,
    quantization_tables: Vec<Vec<f64>>,
    pub(crate) dc_tables: Vec<HuffmanTable>,
    pub(crate) ac_tables: Vec<HuffmanTable>,
    restart_interval: usize,
}

impl ParsedHeaders {
    /// Returns the number of MCUs in a row and the number of rows of MCUs.
    pub(crate) fn mcu_counts(&self) -> (usize, usize) {
        let (across, down) = max_blocks(self);
        (self.size.0.div_ceil(8 * across), self.size.1.div_ceil(8 * down))
    }
}

/// The quantised coefficients of a component, padded to whole MCUs.
pub(crate) struct Coefficients {
    /// Number of blocks in a row.
    pub(crate) blocks_across: usize,
    /// The blocks, row by row, each in zigzag order.
    pub(crate) blocks: Vec<[i32; 64]>,
}

fn parse_headers(file: &[u8]) -> ParsedHeaders {
    let mut headers = ParsedHeaders {
        size: (0, 0),
        components: Vec::new(),
        quantization_tables: Vec::new(),
        dc_tables: Vec::new(),
        ac_tables: Vec::new(),
        restart_interval: 0,
    };
    let mut position = 2;
    while position < segment_position(file, 0xDA) {
        let length = usize::from(u16::from_be_bytes([file[position + 2], file[position + 3]]));
        let segment = &file[position + 4..position + 2 + length];
        match file[position + 1] {
            0xC0 => {
                let read_u16 =
                    |start: usize| usize::from(u16::from_be_bytes([segment[start], segment[start + 1]]));
                headers.size = (read_u16(3), read_u16(1));
                headers.components = segment[6..]
                    .chunks(3)
                    .map(|fields| Component {
                        blocks_across: usize::from(fields[1] >> 4),
                        blocks_down: usize::from(fields[1] & 15),
                        quantization_table_index: usize::from(fields[2]),
                    })
                    .collect();
            }
            0xC4 => {
                let (mut code_word, mut symbol_index, mut table) = (0, 17, HuffmanTable::new());
                for length in 1..=16 {
                    for _ in 0..segment[length] {
                        table.insert((length, code_word), segment[symbol_index]);
                        (code_word, symbol_index) = (code_word + 1, symbol_index + 1);
                    }
                    code_word <<= 1;
                }
                if segment[0] < 16 { headers.dc_tables.push(table) } else { headers.ac_tables.push(table) }
            }
            0xDB => {
                let steps = segment[1..].iter().map(|&step| f64::from(step)).collect();
                headers.quantization_tables.push(steps);
            }
            0xDD => headers.restart_interval = usize::from(u16::from_be_bytes([segment[0], segment[1]])),
            _ => {}
        }
        position += 2 + length;
    }
    if let [only] = &mut headers.components[..] {
        (only.blocks_across, only.blocks_down) = (1, 1);
    }
    headers
}

/// Computes the inverse DCT as defined in annex A of the standard.
fn inverse_dct(coefficients: &[[f64; 8]; 8]) -> [[f64; 8]; 8] {
    let basis = |sample: usize, frequency: usize| {
        let scale = if frequency == 0 { 1.0 / SQRT_2 } else { 1.0 };
        let angle = f64::from(u16::try_from((2 * sample + 1) * frequency).unwrap()) * PI / 16.0;
        scale * angle.cos() / 2.0
    };
    let mut samples = [[0.0; 8]; 8];
    for (y, row) in samples.iter_mut().enumerate() {
        for (x, sample) in row.iter_mut().enumerate() {
            for (v, frequencies) in coefficients.iter().enumerate() {
                for (u, coefficient) in frequencies.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                    *sample += coefficient * basis(x, u) * basis(y, v);
                }
            }
        }
    }
    samples
}

/// The samples of a component, centred on zero.
struct Plane {
    width: usize,
    samples: Vec<f64>,
}

impl Plane {
    fn sample(&self, x: usize, y: usize) -> f64 {
        self.samples[y * self.width + x]
    }

    /// Replaces each rectangle of `across` × `down` samples by its mean.
    fn average(&self, across: usize, down: usize) -> Self {
        let (width, height) = (self.width / across, self.samples.len() / self.width / down);
        let mut samples = Vec::new();
        for index in 0..width * height {
            let (x, y) = (index % width * across, index / width * down);
            let sum: f64 =
                (0..across * down).map(|inner| self.sample(x + inner % across, y + inner / across)).sum();
            samples.push(sum / f64::from(u16::try_from(across * down).unwrap()));
        }
        Self { width, samples }
    }
}

/// Reads the coefficients of all components of a file with one scan.
pub(crate) fn read_coefficients(file: &[u8]) -> (ParsedHeaders, Vec<Coefficients>) {
    let headers = parse_headers(file);
    let (columns, rows) = headers.mcu_counts();
    let mut coefficients: Vec<Coefficients> = (headers.components.iter())
        .map(|component| {
            let (across, down) = (columns * component.blocks_across, rows * component.blocks_down);
            Coefficients { blocks_across: across, blocks: vec![[0; 64]; across * down] }
        })
        .collect();
    let mut reader = BitReader { bytes: file, position: entropy_coded_start(file), bits_read: 0 };
    let mut previous_dc = [0; 3];
    for mcu in 0..columns * rows {
        if headers.restart_interval > 0 && mcu > 0 && mcu % headers.restart_interval == 0 {
            reader.skip_restart_marker();
            previous_dc = [0; 3];
        }
        for (index, component) in headers.components.iter().enumerate() {
            let table_index = usize::from(index > 0);
            for block in 0..component.blocks_across * component.blocks_down {
                let column = mcu % columns * component.blocks_across + block % component.blocks_across;
                let row = mcu / columns * component.blocks_down + block / component.blocks_across;
                let component_blocks = &mut coefficients[index];
                let coded = &mut component_blocks.blocks[row * component_blocks.blocks_across + column];
                let value_length = reader.read_symbol(&headers.dc_tables[table_index]);
                previous_dc[index] += reader.read_value(value_length.into());
                coded[0] = previous_dc[index];
                let mut position = 1;
                while position < 64 {
                    let symbol = reader.read_symbol(&headers.ac_tables[table_index]);
                    if symbol == 0 {
                        break;
                    }
                    position += usize::from(symbol >> 4);
                    coded[position] = reader.read_value(u32::from(symbol & 15));
                    position += 1;
                }
            }
        }
    }
    (headers, coefficients)
}

/// Decodes all planes at full resolution, padded to whole MCUs.
fn decode_planes(file: &[u8]) -> (ParsedHeaders, Vec<Plane>) {
    let (headers, coefficients) = read_coefficients(file);
    let order = zigzag_order();
    let planes = (headers.components.iter().zip(&coefficients))
        .map(|(component, Coefficients { blocks_across, blocks })| {
            let steps = &headers.quantization_tables[component.quantization_table_index];
            let mut plane = Plane { width: 8 * blocks_across, samples: vec![0.0; 64 * blocks.len()] };
            for (index, block) in blocks.iter().enumerate() {
                let mut coefficients = [[0.0; 8]; 8];
                for ((&(row, column), &value), step) in order.iter().zip(block).zip(steps) {
                    coefficients[row][column] = f64::from(value) * step;
                }
                let (left, top) = (8 * (index % blocks_across), 8 * (index / blocks_across));
                for (y, row) in inverse_dct(&coefficients).into_iter().enumerate() {
                    let start = (top + y) * plane.width + left;
                    plane.samples[start..start + 8].copy_from_slice(&row);
                }
            }
            plane
        })
        .collect();
    (headers, planes)
}

/// Returns the maximum number of blocks per MCU of any component, horizontally and vertically.
pub(crate) fn max_blocks(headers: &ParsedHeaders) -> (usize, usize) {
    let max = |factor: fn(&Component) -> usize| headers.components.iter().map(factor).max().unwrap();
    (max(|component| component.blocks_across), max(|component| component.blocks_down))
}

/// Returns the sample at `position` of a row or column whose `length` samples are doubled: ¾ of the nearest
/// sample plus ¼ of the next nearest.
fn interpolate(position: usize, length: usize, sample: impl Fn(usize) -> f64) -> f64 {
    let nearest = position / 2;
    let next_nearest =
        if position == 2 * nearest { nearest.saturating_sub(1) } else { (nearest + 1).min(length - 1) };
    0.75 * sample(nearest) + 0.25 * sample(next_nearest)
}

/// Decodes a file at 1/`denominator` of its size to red, green and blue values between 0 and 255.
///
/// Luminance is averaged over squares of `denominator` × `denominator` samples. Colour differences that have
/// half the samples in both directions are averaged over squares of half that side.
pub(crate) fn decode(file: &[u8], denominator: usize) -> Vec<f64> {
    let (headers, planes) = decode_planes(file);
    let (across, down) = max_blocks(&headers);
    let (width, height) = (headers.size.0.div_ceil(denominator), headers.size.1.div_ceil(denominator));
    // Each plane, whether its width must be doubled, and whether its height must be doubled.
    let scaled: Vec<(Plane, bool, bool)> = (planes.iter().zip(&headers.components))
        .map(|(plane, component)| {
            let (double_width, double_height) =
                (across / component.blocks_across == 2, down / component.blocks_down == 2);
            // Larger blocks replace the upsampling of a component with half the samples in both directions.
            let has_larger_blocks = double_width && double_height && denominator > 1;
            let (mut plane, double_width, double_height) = if has_larger_blocks {
                (plane.average(denominator / 2, denominator / 2), false, false)
            } else {
                (plane.average(denominator, denominator), double_width, double_height)
            };
            // Decoders clamp samples to a byte before upsampling.
            plane.samples.iter_mut().for_each(|sample| *sample = sample.clamp(-128.0, 127.0));
            (plane, double_width, double_height)
        })
        .collect();
    let sample = |(plane, double_width, double_height): &(Plane, bool, bool), x: usize, y: usize| {
        // Size of a component with half the samples in both directions.
        let (half_width, half_height) =
            (headers.size.0.div_ceil(2 * denominator), headers.size.1.div_ceil(2 * denominator));
        // libjpeg repeats samples at 1/8 of the size, and in rows of one or two samples.
        let is_repeated = denominator == 8 || (*double_width && half_width <= 2);
        match (double_width, double_height) {
            (false, false) => plane.sample(x, y),
            (true, true) if is_repeated => plane.sample(x / 2, y / 2),
            (true, _) if is_repeated => plane.sample(x / 2, y),
            (_, true) if is_repeated => plane.sample(x, y / 2),
            (true, true) => {
                interpolate(x, half_width, |x| interpolate(y, half_height, |y| plane.sample(x, y)))
            }
            (true, _) => interpolate(x, half_width, |x| plane.sample(x, y)),
            (_, true) => interpolate(y, half_height, |y| plane.sample(x, y)),
        }
    };
    let mut pixels = Vec::new();
    for index in 0..width * height {
        let (x, y) = (index % width, index / width);
        let samples: Vec<f64> = scaled.iter().map(|plane| sample(plane, x, y) + 128.0).collect();
        match samples[..] {
            [luminance, blue, red] => {
                let (blue, red) = (blue - 128.0, red - 128.0);
                let green = luminance - 0.344_136_286 * blue - 0.714_136_286 * red;
                pixels.extend([luminance + 1.402 * red, green, luminance + 1.772 * blue]);
            }
            _ => pixels.extend([samples[0]; 3]),
        }
    }
    pixels.iter().map(|value| value.clamp(0.0, 255.0)).collect()
}
