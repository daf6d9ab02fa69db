//! Writes progressive files with the coefficients of a sequential file.

use proptest::prelude::*;

use crate::{
    files::segment_position,
    naive::{Coefficients, ParsedHeaders, max_blocks, read_coefficients},
    scans::{BitWriter, segment, segments},
};

/// A scan of a progressive file.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Indices of the components.
    pub(crate) components: Vec<usize>,
    /// Positions of the first and of the last coefficient in zigzag order.
    pub(crate) band: (usize, usize),
    /// Number of low bits that are missing before the scan, or 0 if no bits were written before.
    pub(crate) missing_before: u8,
    /// Number of low bits that are missing after the scan.
    pub(crate) missing_after: u8,
    /// Number of MCUs between two restart markers, or 0.
    pub(crate) restart_interval: u16,
}

/// Returns the scans of the DC or AC coefficients of `components` in `band`, which leave out `missing_bits`
/// bits at first.
fn passes(components: &[usize], band: (usize, usize), missing_bits: u8, restart_interval: u16) -> Vec<Scan> {
    let pass = |missing_before, missing_after| Scan {
        components: components.to_vec(),
        band,
        missing_before,
        missing_after,
        restart_interval,
    };
    let refinements = (0..missing_bits).rev().map(|missing_after| pass(missing_after + 1, missing_after));
    [pass(0, missing_bits)].into_iter().chain(refinements).collect()
}

/// Generates the scans of a file with `component_count` components: any order of any division that the
/// standard allows.
pub(crate) fn scripts(component_count: usize) -> impl Strategy<Value = Vec<Scan>> {
    let bits = || prop::collection::vec(0..4u8, 3);
    let split_positions = prop::collection::vec(prop::option::of(1..63usize), 3);
    let restart_interval = prop_oneof![Just(0), 1..9u16];
    (any::<bool>(), bits(), bits(), bits(), split_positions, restart_interval, any::<u64>()).prop_map(
        move |(is_interleaved, dc_bits, low_bits, high_bits, splits, restart_interval, seed)| {
            let all: Vec<usize> = (0..component_count).collect();
            // Lists of scans that must stay in order. The first scan of the DC coefficients comes first.
            let mut lists = Vec::new();
            let mut dc_refinements = Vec::new();
            let mut scans = Vec::new();
            let dc_groups =
                if is_interleaved { vec![all.clone()] } else { all.chunks(1).map(<[_]>::to_vec).collect() };
            for (components, &bits) in dc_groups.iter().zip(&dc_bits) {
                let mut list = passes(components, (0, 0), bits, restart_interval);
                dc_refinements.push(list.split_off(1));
                scans.extend(list);
            }
            lists.extend(dc_refinements);
            for component in all {
                let bands = match splits[component] {
                    Some(last) => {
                        vec![((1, last), low_bits[component]), ((last + 1, 63), high_bits[component])]
                    }
                    None => vec![((1, 63), low_bits[component])],
                };
                for (band, bits) in bands {
                    lists.push(passes(&[component], band, bits, restart_interval));
                }
            }
            let mut random = seed | 1;
            while lists.iter().any(|list| !list.is_empty()) {
                let index = usize::from(crate::files::next_random(&mut random)) % lists.len();
                if !lists[index].is_empty() {
                    scans.push(lists[index].remove(0));
                }
            }
            scans
        },
    )
}

/// The scans that libjpeg writes for a file with three components.
pub(crate) fn usual_script() -> Vec<Scan> {
    let scan = |components: &[usize], band, missing_before, missing_after| Scan {
        components: components.to_vec(),
        band,
        missing_before,
        missing_after,
        restart_interval: 0,
    };
    vec![
        scan(&[0, 1, 2], (0, 0), 0, 1),
        scan(&[0], (1, 5), 0, 2),
        scan(&[2], (1, 63), 0, 1),
        scan(&[1], (1, 63), 0, 1),
        scan(&[0], (6, 63), 0, 2),
        scan(&[0], (1, 63), 2, 1),
        scan(&[0, 1, 2], (0, 0), 1, 0),
        scan(&[2], (1, 63), 1, 0),
        scan(&[1], (1, 63), 1, 0),
        scan(&[0], (1, 63), 1, 0),
    ]
}

/// Writes the entropy-coded data of AC scans.
///
/// The code word of each symbol is the symbol itself, in 9 bits.
#[derive(Default)]
struct AcWriter {
    writer: BitWriter,
    /// Number of blocks that end without a further coefficient and are not written yet.
    end_of_block_run: usize,
    /// The correction bits of these blocks.
    run_corrections: Vec<bool>,
}

impl AcWriter {
    fn write_symbol(&mut self, high: usize, low: usize) {
        self.writer.write(high << 4 | low, 9);
    }

    fn write_corrections(&mut self, corrections: Vec<bool>) {
        for is_increased in corrections {
            self.writer.write(usize::from(is_increased), 1);
        }
    }

    fn write_end_of_block_run(&mut self) {
        if self.end_of_block_run > 0 {
            let length = self.end_of_block_run.ilog2() as usize;
            self.write_symbol(length, 0);
            self.writer.write(self.end_of_block_run, length);
            self.end_of_block_run = 0;
        }
        let corrections = std::mem::take(&mut self.run_corrections);
        self.write_corrections(corrections);
    }

    fn end_block(&mut self, corrections: Vec<bool>) {
        self.end_of_block_run += 1;
        self.run_corrections.extend(corrections);
        if self.end_of_block_run == 0x7FFF {
            self.write_end_of_block_run();
        }
    }

    fn write_first(&mut self, coefficients: &[i32], shift: u8) {
        let mut zero_count = 0;
        for &coefficient in coefficients {
            let absolute = coefficient.unsigned_abs() >> shift;
            if absolute == 0 {
                zero_count += 1;
                continue;
            }
            self.write_end_of_block_run();
            for _ in 0..zero_count / 16 {
                self.write_symbol(15, 0);
            }
            let length = absolute.ilog2() as usize + 1;
            self.write_symbol(zero_count % 16, length);
            let absolute = usize::try_from(absolute).unwrap();
            self.writer.write(if coefficient < 0 { !absolute } else { absolute }, length);
            zero_count = 0;
        }
        if zero_count > 0 {
            self.end_block(Vec::new());
        }
    }

    fn write_refinement(&mut self, coefficients: &[i32], bit: u8) {
        let absolutes: Vec<u32> = coefficients.iter().map(|value| value.unsigned_abs() >> bit).collect();
        let last_new = absolutes.iter().rposition(|&absolute| absolute == 1);
        let (mut zero_count, mut corrections) = (0, Vec::new());
        for (position, (&absolute, &coefficient)) in absolutes.iter().zip(coefficients).enumerate() {
            if absolute == 0 {
                zero_count += 1;
                continue;
            }
            while zero_count > 15 && last_new.is_some_and(|last_new| position <= last_new) {
                self.write_end_of_block_run();
                self.write_symbol(15, 0);
                self.write_corrections(std::mem::take(&mut corrections));
                zero_count -= 16;
            }
            if absolute > 1 {
                corrections.push(absolute & 1 == 1);
                continue;
            }
            self.write_end_of_block_run();
            self.write_symbol(zero_count, 1);
            self.writer.write(usize::from(coefficient > 0), 1);
            self.write_corrections(std::mem::take(&mut corrections));
            zero_count = 0;
        }
        if zero_count > 0 || !corrections.is_empty() {
            self.end_block(corrections);
        }
    }
}

/// Writes the entropy-coded data of `scan`.
fn encode_scan(headers: &ParsedHeaders, coefficients: &[Coefficients], scan: &Scan) -> Vec<u8> {
    let (columns, rows) = match scan.components[..] {
        [only] => headers.block_counts(only),
        _ => headers.mcu_counts(),
    };
    let mut writer = AcWriter::default();
    let mut previous_dc = [0; 3];
    for mcu in 0..columns * rows {
        let interval = usize::from(scan.restart_interval);
        if interval > 0 && mcu > 0 && mcu % interval == 0 {
            writer.write_end_of_block_run();
            writer.writer.write_restart_marker(mcu / interval - 1);
            previous_dc = [0; 3];
        }
        for &index in &scan.components {
            let (across, down) = match scan.components[..] {
                [_] => (1, 1),
                _ => (headers.components[index].blocks_across, headers.components[index].blocks_down),
            };
            for block in 0..across * down {
                let (column, row) =
                    (mcu % columns * across + block % across, mcu / columns * down + block / across);
                let Coefficients { blocks_across, blocks } = &coefficients[index];
                let coefficients = &blocks[row * blocks_across + column];
                let band = &coefficients[scan.band.0..=scan.band.1];
                match (scan.band.0, scan.missing_before) {
                    (0, 0) => {
                        let dc = coefficients[0] >> scan.missing_after;
                        let difference = dc - previous_dc[index];
                        previous_dc[index] = dc;
                        let length = (u32::BITS - difference.unsigned_abs().leading_zeros()) as usize;
                        writer.writer.write(length, 4);
                        let bits = if difference < 0 { difference - 1 } else { difference };
                        writer.writer.write(usize::try_from(bits & 0xFFFF).unwrap(), length);
                    }
                    (0, _) => {
                        writer.writer.write(usize::from(coefficients[0] >> scan.missing_after & 1 == 1), 1);
                    }
                    (_, 0) => writer.write_first(band, scan.missing_after),
                    _ => writer.write_refinement(band, scan.missing_after),
                }
            }
        }
    }
    writer.write_end_of_block_run();
    writer.writer.pad();
    writer.writer.bytes
}

/// Returns the segments with Huffman tables: DC code words of 4 bits and AC code words of 9 bits, which both
/// equal their symbols.
fn huffman_tables() -> Vec<u8> {
    let mut dc = vec![0; 17];
    dc[4] = 12;
    dc.extend(0..12);
    let mut ac = vec![0; 17];
    (ac[0], ac[9]) = (0x10, 255);
    ac.extend(0..255);
    [segment(0xC4, &dc), segment(0xC4, &ac)].concat()
}

/// Returns the coefficients of `file`, which has one scan, in a progressive file with the given scans.
pub(crate) fn with_progressive_scans(file: &[u8], scans: &[Scan]) -> Vec<u8> {
    let frame = segment_position(file, 0xC0);
    let (headers, coefficients) = read_coefficients(file);
    let mut result = file[..2].to_vec();
    for (marker, payload) in segments(file) {
        match marker {
            0xC0 => result.extend(segment(0xC2, &payload)),
            0xC4 | 0xDD => {}
            _ => result.extend(segment(marker, &payload)),
        }
    }
    result.extend(huffman_tables());
    for scan in scans {
        result.extend(segment(0xDD, &scan.restart_interval.to_be_bytes()));
        let mut header = vec![u8::try_from(scan.components.len()).unwrap()];
        for &index in &scan.components {
            header.extend([file[frame + 10 + 3 * index], 0]);
        }
        let (first, last) = scan.band;
        header.extend([first, last].map(|position| u8::try_from(position).unwrap()));
        header.push(scan.missing_before << 4 | scan.missing_after);
        result.extend(segment(0xDA, &header));
        result.extend(encode_scan(&headers, &coefficients, scan));
    }
    result.extend(b"\xFF\xD9");
    result
}

impl ParsedHeaders {
    /// Returns the number of blocks in a scan of only this component, horizontally and vertically.
    fn block_counts(&self, component_index: usize) -> (usize, usize) {
        let (max_across, max_down) = max_blocks(self);
        let component = self.components[component_index];
        (
            (self.size.0 * component.blocks_across).div_ceil(max_across).div_ceil(8),
            (self.size.1 * component.blocks_down).div_ceil(max_down).div_ceil(8),
        )
    }
}
