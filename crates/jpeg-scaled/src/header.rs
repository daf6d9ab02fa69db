//! The marker segments before the pixels.

use crate::{Error, huffman::CodeLengths, segment::Segments, zigzag::ZIGZAG};

/// What a file says before its pixels: enough to decide whether, and at which scale, to decode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// What the samples mean.
    pub colour: Colour,
}

/// What the samples of a picture mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// One component: brightness.
    Grey,
    /// Three components: brightness and two differences of colour.
    YCbCr,
    /// Three components: red, green, blue.
    Rgb,
}

impl Header {
    /// Reads the segments before the pixels. Allocates nothing, and steps over what it does not need.
    ///
    /// # Errors
    /// [`Error`], about anything that can be told before the first pixel.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        Ok(Tables::read(bytes)?.header)
    }
}

/// A component, as the frame header describes it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Component {
    id: u8,
    /// Blocks across in an MCU.
    pub(crate) horizontal: usize,
    /// Blocks down in an MCU.
    pub(crate) vertical: usize,
    quantization: usize,
    /// Which of [`Tables::dc_codes`].
    pub(crate) dc: usize,
    /// Which of [`Tables::ac_codes`].
    pub(crate) ac: usize,
}

/// Steps of the quantiser for each coefficient, row by row.
pub(crate) type Quantization = [i16; 64];

/// Everything that stands before the pixels.
pub(crate) struct Tables<'a> {
    pub(crate) header: Header,
    /// [`Colour::Grey`] has one.
    components: [Component; 3],
    count: usize,
    quantization: [Option<Quantization>; 4],
    pub(crate) dc_codes: [Option<CodeLengths<'a>>; 4],
    pub(crate) ac_codes: [Option<CodeLengths<'a>>; 4],
    /// MCUs between two restart markers; 0 without any.
    pub(crate) restart_interval: u32,
    /// Where the entropy-coded pixels begin.
    pub(crate) pixels_at: usize,
}

/// The markers that say what the samples mean.
#[derive(Default)]
struct ColourMarkers {
    jfif: bool,
    adobe_transform: Option<u8>,
}

impl<'a> Tables<'a> {
    /// Reads the segments up to the pixels.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut segments = Segments::new(bytes)?;
        let mut tables = Self {
            header: Header { width: 0, height: 0, colour: Colour::Grey },
            components: [Component::default(); 3],
            count: 0,
            quantization: [None; 4],
            dc_codes: [None; 4],
            ac_codes: [None; 4],
            restart_interval: 0,
            pixels_at: 0,
        };
        let mut markers = ColourMarkers::default();
        loop {
            let (marker, segment) = segments.next()?;
            match marker {
                0xC0 | 0xC1 => tables.frame(segment)?,
                0xC2 => return Err(Error::Unsupported("progressive JPEG")),
                0xC4 => tables.huffman(segment)?,
                0xC3 | 0xC5..=0xCF => {
                    return Err(Error::Unsupported("arithmetic, lossless or hierarchical JPEG"));
                }
                0xDA => {
                    tables.scan(segment)?;
                    tables.pixels_at = segments.position();
                    tables.header.colour = tables.colour(&markers);
                    return Ok(tables);
                }
                0xDB => tables.quantization(segment)?,
                0xDD => tables.restart_interval = restart_interval(segment)?,
                0xE0 => markers.jfif |= segment.starts_with(b"JFIF\0") && segment.len() >= 14,
                0xEE if segment.starts_with(b"Adobe") && segment.len() >= 12 => {
                    markers.adobe_transform = segment.get(11).copied();
                }
                0xE1..=0xEF | 0xFE => {}
                0xD9 => return Err(Error::Corrupt("it has no pixels")),
                _ => return Err(Error::Unsupported("an unexpected marker")),
            }
        }
    }

    /// The components in the order of the file.
    pub(crate) fn components(&self) -> &[Component] {
        &self.components[..self.count]
    }

    /// The quantiser's steps for `component`.
    pub(crate) fn quantization_of(&self, component: &Component) -> Result<&Quantization, Error> {
        let table = self.quantization.get(component.quantization).and_then(Option::as_ref);
        table.ok_or(Error::Corrupt("a quantisation table is missing"))
    }

    /// SOF0 and SOF1.
    fn frame(&mut self, segment: &[u8]) -> Result<(), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("the frame header has a wrong length");
        if self.count != 0 {
            return Err(Error::Corrupt("it has two frame headers"));
        }
        let [precision, height_high, height_low, width_high, width_low, count, components @ ..] = segment
        else {
            return Err(BAD_LENGTH);
        };
        if *precision != 8 {
            return Err(Error::Unsupported("a precision other than 8 bits"));
        }
        self.header.height = u32::from(u16::from_be_bytes([*height_high, *height_low]));
        self.header.width = u32::from(u16::from_be_bytes([*width_high, *width_low]));
        if self.header.height == 0 {
            return Err(Error::Unsupported("a height that comes after the pixels"));
        }
        if self.header.width == 0 {
            return Err(Error::Corrupt("it has no width"));
        }
        if !matches!(count, 1 | 3) {
            return Err(Error::Unsupported("a number of components other than 1 and 3"));
        }
        self.count = usize::from(*count);
        let (components, []) = components.as_chunks::<3>() else { return Err(BAD_LENGTH) };
        if components.len() != self.count {
            return Err(BAD_LENGTH);
        }
        for (component, &[id, factors, quantization]) in self.components.iter_mut().zip(components) {
            let (horizontal, vertical) = (usize::from(factors >> 4), usize::from(factors & 15));
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) {
                return Err(Error::Corrupt("a sampling factor is out of range"));
            }
            let quantization = usize::from(quantization);
            *component = Component { id, horizontal, vertical, quantization, ..Component::default() };
        }
        if let [only] = &mut self.components[..self.count] {
            // A scan of one component has its blocks row by row, whatever its sampling factors.
            (only.horizontal, only.vertical) = (1, 1);
        }
        if self.components().iter().map(|component| component.horizontal * component.vertical).sum::<usize>()
            > 10
        {
            return Err(Error::Corrupt("an MCU has too many blocks"));
        }
        Ok(())
    }

    /// DQT: any number of tables.
    fn quantization(&mut self, mut segment: &[u8]) -> Result<(), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("a quantisation table has a wrong length");
        while let Some((&kind, rest)) = segment.split_first() {
            let slot = self.quantization.get_mut(usize::from(kind & 15));
            let slot = slot.ok_or(Error::Corrupt("a quantisation table has a wrong number"))?;
            let mut steps = [0; 64];
            match kind >> 4 {
                0 => {
                    let (stored, rest) = rest.split_first_chunk::<64>().ok_or(BAD_LENGTH)?;
                    for (&at, &step) in ZIGZAG.iter().zip(stored) {
                        steps[usize::from(at)] = i16::from(step);
                    }
                    segment = rest;
                }
                1 => {
                    let (stored, rest) = rest.split_first_chunk::<128>().ok_or(BAD_LENGTH)?;
                    for (&at, &step) in ZIGZAG.iter().zip(stored.as_chunks::<2>().0) {
                        let step = i16::try_from(u16::from_be_bytes(step));
                        let step = step.map_err(|_| Error::Unsupported("a very coarse quantiser"))?;
                        steps[usize::from(at)] = step;
                    }
                    segment = rest;
                }
                _ => return Err(Error::Corrupt("a quantisation table has a wrong precision")),
            }
            *slot = Some(steps);
        }
        Ok(())
    }

    /// DHT: any number of tables.
    fn huffman(&mut self, mut segment: &'a [u8]) -> Result<(), Error> {
        while let Some((&kind, rest)) = segment.split_first() {
            let tables = match kind >> 4 {
                0 => &mut self.dc_codes,
                1 => &mut self.ac_codes,
                _ => return Err(Error::Corrupt("a Huffman table has a wrong class")),
            };
            let slot = tables.get_mut(usize::from(kind & 15));
            let slot = slot.ok_or(Error::Corrupt("a Huffman table has a wrong number"))?;
            let (codes, rest) = CodeLengths::split_from(rest)?;
            *slot = Some(codes);
            segment = rest;
        }
        Ok(())
    }

    /// SOS.
    fn scan(&mut self, segment: &[u8]) -> Result<(), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("the scan header has a wrong length");
        let [count, rest @ ..] = segment else { return Err(BAD_LENGTH) };
        if self.count == 0 {
            return Err(Error::Corrupt("pixels come before the frame header"));
        }
        if usize::from(*count) != self.count {
            return Err(Error::Unsupported("components in scans of their own"));
        }
        let Some((components, [start, end, approximation])) = rest.split_at_checked(2 * self.count) else {
            return Err(BAD_LENGTH);
        };
        if (*start, *end, *approximation) != (0, 63, 0) {
            return Err(Error::Unsupported("a scan of part of the coefficients"));
        }
        for (component, &[id, tables]) in self.components.iter_mut().zip(components.as_chunks::<2>().0) {
            if component.id != id {
                return Err(Error::Unsupported("components in another order"));
            }
            (component.dc, component.ac) = (usize::from(tables >> 4), usize::from(tables & 15));
        }
        Ok(())
    }

    /// The rules of libjpeg, which everybody follows.
    fn colour(&self, markers: &ColourMarkers) -> Colour {
        let [first, second, third] = self.components;
        match markers.adobe_transform {
            _ if self.count == 1 => Colour::Grey,
            _ if markers.jfif => Colour::YCbCr,
            Some(0) => Colour::Rgb,
            None if [first.id, second.id, third.id] == *b"RGB" => Colour::Rgb,
            _ => Colour::YCbCr,
        }
    }
}

/// DRI, in MCUs.
fn restart_interval(segment: &[u8]) -> Result<u32, Error> {
    let &[high, low] = segment else { return Err(Error::Corrupt("a restart interval has a wrong length")) };
    Ok(u32::from(u16::from_be_bytes([high, low])))
}
