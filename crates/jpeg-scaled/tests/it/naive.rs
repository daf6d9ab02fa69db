//! A decoder by the definitions, in floating point and without any shortcut: what a picture would look
//! like without rounding.

use std::{
    collections::HashMap,
    f64::consts::{PI, SQRT_2},
};

use crate::files::{pixels_at, position};

/// The order in which coefficients are stored, from the walk that defines it.
fn zigzag() -> Vec<(usize, usize)> {
    let mut order: Vec<(usize, usize)> = (0..64).map(|at| (at / 8, at % 8)).collect();
    order.sort_by_key(|&(row, column)| {
        let diagonal = row + column;
        (diagonal, if diagonal % 2 == 0 { column } else { row })
    });
    order
}

#[derive(Clone, Copy)]
struct Component {
    across: usize,
    down: usize,
    steps: usize,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    bit: u32,
}

impl Bits<'_> {
    fn bit(&mut self) -> usize {
        let bit = self.bytes[self.at] >> (7 - self.bit) & 1;
        self.bit += 1;
        if self.bit == 8 {
            self.bit = 0;
            self.at += if self.bytes[self.at] == 0xFF { 2 } else { 1 };
        }
        usize::from(bit)
    }

    fn number(&mut self, size: u32) -> i32 {
        let value = (0..size).fold(0, |value, _| value << 1 | i32::try_from(self.bit()).unwrap());
        if size > 0 && value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
    }

    fn symbol(&mut self, codes: &Codes) -> u8 {
        let (mut length, mut code) = (0, 0);
        loop {
            (length, code) = (length + 1, code << 1 | self.bit());
            if let Some(&symbol) = codes.get(&(length, code)) {
                return symbol;
            }
        }
    }

    /// To the byte after the next restart marker.
    fn restart(&mut self) {
        if self.bit > 0 {
            self.bit = 0;
            self.at += if self.bytes[self.at] == 0xFF { 2 } else { 1 };
        }
        self.at += 2;
    }
}

/// Symbols by length and code.
type Codes = HashMap<(usize, usize), u8>;

/// A file's segments, of one or two tables of each kind.
struct File {
    size: (usize, usize),
    components: Vec<Component>,
    steps: Vec<Vec<f64>>,
    dc: Vec<Codes>,
    ac: Vec<Codes>,
    restart_interval: usize,
}

fn read(file: &[u8]) -> File {
    let mut read = File {
        size: (0, 0),
        components: Vec::new(),
        steps: Vec::new(),
        dc: Vec::new(),
        ac: Vec::new(),
        restart_interval: 0,
    };
    let mut at = 2;
    while at < position(file, 0xDA) {
        let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        let segment = &file[at + 4..at + 2 + length];
        match file[at + 1] {
            0xC0 => {
                let side = |at: usize| usize::from(u16::from_be_bytes([segment[at], segment[at + 1]]));
                read.size = (side(3), side(1));
                read.components = segment[6..]
                    .chunks(3)
                    .map(|part| Component {
                        across: usize::from(part[1] >> 4),
                        down: usize::from(part[1] & 15),
                        steps: usize::from(part[2]),
                    })
                    .collect();
            }
            0xC4 => {
                let (mut code, mut place, mut codes) = (0, 17, Codes::new());
                for length in 1..=16 {
                    for _ in 0..segment[length] {
                        codes.insert((length, code), segment[place]);
                        (code, place) = (code + 1, place + 1);
                    }
                    code <<= 1;
                }
                if segment[0] < 16 { read.dc.push(codes) } else { read.ac.push(codes) }
            }
            0xDB => read.steps.push(segment[1..].iter().map(|&step| f64::from(step)).collect()),
            0xDD => read.restart_interval = usize::from(u16::from_be_bytes([segment[0], segment[1]])),
            _ => {}
        }
        at += 2 + length;
    }
    if let [only] = &mut read.components[..] {
        (only.across, only.down) = (1, 1);
    }
    read
}

/// The inverse DCT of the standard's annex A.
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

/// Samples of a component, around zero.
struct Plane {
    width: usize,
    samples: Vec<f64>,
}

impl Plane {
    fn at(&self, x: usize, y: usize) -> f64 {
        self.samples[y * self.width + x]
    }

    /// Means of `across` × `down` samples.
    fn means(&self, across: usize, down: usize) -> Self {
        let (width, height) = (self.width / across, self.samples.len() / self.width / down);
        let mut samples = Vec::new();
        for at in 0..width * height {
            let (x, y) = (at % width * across, at / width * down);
            let sum: f64 = (0..across * down).map(|of| self.at(x + of % across, y + of / across)).sum();
            samples.push(sum / f64::from(u16::try_from(across * down).unwrap()));
        }
        Self { width, samples }
    }
}

/// All planes at full resolution, as wide and as high as whole MCUs.
fn planes(file: &[u8]) -> (File, Vec<Plane>) {
    let read = read(file);
    let most = |of: fn(&Component) -> usize| read.components.iter().map(of).max().unwrap();
    let (across, down) = (most(|component| component.across), most(|component| component.down));
    let (columns, rows) = (read.size.0.div_ceil(8 * across), read.size.1.div_ceil(8 * down));
    let mut planes: Vec<Plane> = (read.components.iter())
        .map(|component| {
            let (width, height) = (columns * component.across * 8, rows * component.down * 8);
            Plane { width, samples: vec![0.0; width * height] }
        })
        .collect();
    let mut bits = Bits { bytes: file, at: pixels_at(file), bit: 0 };
    let mut previous = [0; 3];
    let order = zigzag();
    for mcu in 0..columns * rows {
        if read.restart_interval > 0 && mcu > 0 && mcu % read.restart_interval == 0 {
            bits.restart();
            previous = [0; 3];
        }
        for (number, component) in read.components.iter().enumerate() {
            let tables = usize::from(number > 0);
            for block in 0..component.across * component.down {
                let mut coefficients = [[0.0; 8]; 8];
                let mut set = |at: usize, value: i32| {
                    let (row, column) = order[at];
                    coefficients[row][column] = f64::from(value) * read.steps[component.steps][at];
                };
                let size = bits.symbol(&read.dc[tables]);
                previous[number] += bits.number(size.into());
                set(0, previous[number]);
                let mut at = 1;
                while at < 64 {
                    let symbol = bits.symbol(&read.ac[tables]);
                    if symbol == 0 {
                        break;
                    }
                    at += usize::from(symbol >> 4);
                    set(at, bits.number(u32::from(symbol & 15)));
                    at += 1;
                }
                let left = 8 * (mcu % columns * component.across + block % component.across);
                let top = 8 * (mcu / columns * component.down + block / component.across);
                let plane = &mut planes[number];
                for (y, row) in inverse_dct(&coefficients).into_iter().enumerate() {
                    let at = (top + y) * plane.width + left;
                    plane.samples[at..at + 8].copy_from_slice(&row);
                }
            }
        }
    }
    (read, planes)
}

/// A row or column twice as long: ¾ of the nearest sample, ¼ of the next. `length` of them belong to
/// the picture.
fn between(at: usize, length: usize, sample: impl Fn(usize) -> f64) -> f64 {
    let own = at / 2;
    let next = if at == 2 * own { own.saturating_sub(1) } else { (own + 1).min(length - 1) };
    0.75 * sample(own) + 0.25 * sample(next)
}

/// Red, green and blue of every pixel at 1/`denominator`, in the range of 0 to 255: means of the
/// brightness, and colours at the resolution they have.
pub(crate) fn decode(file: &[u8], denominator: usize) -> Vec<f64> {
    let (read, planes) = planes(file);
    let most = |of: fn(&Component) -> usize| read.components.iter().map(of).max().unwrap();
    let (across, down) = (most(|component| component.across), most(|component| component.down));
    let (width, height) = (read.size.0.div_ceil(denominator), read.size.1.div_ceil(denominator));
    let scaled: Vec<(Plane, bool, bool)> = (planes.iter().zip(&read.components))
        .map(|(plane, component)| {
            let (wide, high) = (across / component.across == 2, down / component.down == 2);
            // What is halved both ways is made up for by larger blocks, where there are larger ones.
            let (mut plane, wide, high) = if wide && high && denominator > 1 {
                (plane.means(denominator / 2, denominator / 2), false, false)
            } else {
                (plane.means(denominator, denominator), wide, high)
            };
            // A sample is in the range of a byte before anything is made of it.
            plane.samples.iter_mut().for_each(|sample| *sample = sample.clamp(-128.0, 127.0));
            (plane, wide, high)
        })
        .collect();
    let sample = |(plane, wide, high): &(Plane, bool, bool), x: usize, y: usize| {
        let (own_width, own_height) =
            (read.size.0.div_ceil(2 * denominator), read.size.1.div_ceil(2 * denominator));
        // libjpeg repeats samples where a block has only one, and where a row has one or two.
        let repeated = denominator == 8 || (*wide && own_width <= 2);
        match (wide, high) {
            (false, false) => plane.at(x, y),
            (true, true) if repeated => plane.at(x / 2, y / 2),
            (true, _) if repeated => plane.at(x / 2, y),
            (_, true) if repeated => plane.at(x, y / 2),
            (true, true) => between(x, own_width, |x| between(y, own_height, |y| plane.at(x, y))),
            (true, _) => between(x, own_width, |x| plane.at(x, y)),
            (_, true) => between(y, own_height, |y| plane.at(x, y)),
        }
    };
    let mut pixels = Vec::new();
    for at in 0..width * height {
        let (x, y) = (at % width, at / width);
        let samples: Vec<f64> = scaled.iter().map(|plane| sample(plane, x, y) + 128.0).collect();
        match samples[..] {
            [brightness, blue, red] => {
                let (blue, red) = (blue - 128.0, red - 128.0);
                let green = brightness - 0.344_136_286 * blue - 0.714_136_286 * red;
                pixels.extend([brightness + 1.402 * red, green, brightness + 1.772 * blue]);
            }
            _ => pixels.extend([samples[0]; 3]),
        }
    }
    pixels.iter().map(|value| value.clamp(0.0, 255.0)).collect()
}
