//! Rectangles, orientations, and the properties of an item that transform it.

use crate::{boxes::Reader, error::Error};

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// Number of columns to the left of the rectangle.
    pub left: u32,
    /// Number of rows above the rectangle.
    pub top: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// A part of decoded pixels. Its edges can lie between pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Distance of the left edge from the left edge of the first column, in pixels.
    pub left: f64,
    /// Distance of the upper edge from the upper edge of the first row, in pixels.
    pub top: f64,
    /// Width in pixels.
    pub width: f64,
    /// Height in pixels.
    pub height: f64,
}

impl Window {
    /// Returns a part of a picture of `size` in decoded pixels, which are stretched to `size`.
    pub(crate) fn new(part: Rectangle, size: (u32, u32), decoded_size: (u32, u32)) -> Self {
        let scaled = |start: u32, length: u32, stated: u32, decoded: u32| {
            let scale = f64::from(decoded) / f64::from(stated);
            // Rounding must not move the end behind the last pixel.
            let end = (f64::from(start + length) * scale).min(decoded.into());
            (f64::from(start) * scale, end - f64::from(start) * scale)
        };
        let (left, width) = scaled(part.left, part.width, size.0, decoded_size.0);
        let (top, height) = scaled(part.top, part.height, size.1, decoded_size.1);
        Self { left, top, width, height }
    }
}

/// A mirroring followed by a rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// True if left and right are exchanged first.
    is_mirrored: bool,
    /// Number of clockwise quarter turns, 0 to 3.
    quarter_turns: u8,
}

impl Orientation {
    /// Returns the number of this orientation in EXIF, 1 to 8.
    pub fn to_exif(self) -> u8 {
        match (self.is_mirrored, self.quarter_turns) {
            (false, 0) => 1,
            (true, 0) => 2,
            (false, 2) => 3,
            (true, 2) => 4,
            (true, 3) => 5,
            (false, 1) => 6,
            (true, 1) => 7,
            (_, _) => 8,
        }
    }

    fn turn(self, quarter_turns: u8) -> Self {
        Self { quarter_turns: (self.quarter_turns + quarter_turns) % 4, ..self }
    }

    /// Exchanges left and right. A mirroring after a rotation equals the opposite rotation after the mirroring.
    fn mirror(self) -> Self {
        Self { is_mirrored: !self.is_mirrored, quarter_turns: (4 - self.quarter_turns) % 4 }
    }
}

/// The transformations of an item: a crop, followed by an orientation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    pub(crate) crop: Rectangle,
    pub(crate) orientation: Orientation,
}

impl Transform {
    pub(crate) fn new((width, height): (u32, u32)) -> Self {
        Self { crop: Rectangle { left: 0, top: 0, width, height }, orientation: Orientation::default() }
    }

    /// Applies a property after the present transformations. Ignores other properties.
    pub(crate) fn apply(&mut self, kind: &[u8; 4], content: &[u8]) -> Result<(), Error> {
        let mut reader = Reader(content);
        match kind {
            // Counts quarter turns counterclockwise.
            b"irot" => self.orientation = self.orientation.turn((4 - (reader.u8()? & 3)) % 4),
            b"imir" => {
                let exchanges_left_and_right = reader.u8()? & 1 != 0;
                self.orientation = self.orientation.mirror();
                if !exchanges_left_and_right {
                    self.orientation = self.orientation.turn(2);
                }
            }
            b"clap" if self.orientation != Orientation::default() => {
                return Err(Error::unsupported("a crop after a rotation"));
            }
            b"clap" => self.crop(reader)?,
            _ => {}
        }
        Ok(())
    }

    /// Reads the size of a clean aperture and the offset of its centre from the centre of the picture, as fractions.
    fn crop(&mut self, mut reader: Reader<'_>) -> Result<(), Error> {
        let mut sides = [0; 2];
        for side in &mut sides {
            let (numerator, denominator) = (reader.u32()?, reader.u32()?);
            *side = round(numerator.into(), denominator.into())?;
        }
        let [width, height] = sides;
        let mut corners = [0; 2];
        for (corner, (outer, inner)) in
            corners.iter_mut().zip([(self.crop.width, width), (self.crop.height, height)])
        {
            let numerator = i128::from(reader.u32()?.cast_signed());
            let denominator = i128::from(reader.u32()?);
            *corner = round((i128::from(outer) - inner) * denominator + 2 * numerator, 2 * denominator)?;
        }
        let [left, top] = corners;
        let fits = |start: i128, length: i128, limit: u32| {
            start >= 0 && length > 0 && start + length <= i128::from(limit)
        };
        if !fits(left, width, self.crop.width) || !fits(top, height, self.crop.height) {
            return Err(Error::Corrupt("the crop lies outside the picture"));
        }
        // The numbers are within the picture, so no conversion fails.
        let to_u32 = |number: i128| u32::try_from(number).unwrap_or_default();
        self.crop = Rectangle {
            left: self.crop.left + to_u32(left),
            top: self.crop.top + to_u32(top),
            width: to_u32(width),
            height: to_u32(height),
        };
        Ok(())
    }
}

/// Returns a fraction rounded to the nearest integer.
fn round(numerator: i128, denominator: i128) -> Result<i128, Error> {
    if denominator == 0 {
        return Err(Error::Corrupt("a fraction has the denominator 0"));
    }
    Ok((2 * numerator + denominator).div_euclid(2 * denominator))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transformed(properties: &[(&[u8; 4], u8)]) -> u8 {
        let mut transform = Transform::new((4, 3));
        for &(kind, value) in properties {
            transform.apply(kind, &[value]).unwrap();
        }
        transform.orientation.to_exif()
    }

    #[test]
    fn rotations_and_mirrors_become_one_exif_orientation() {
        // irot counts counterclockwise, and the orientation 6 means a quarter turn clockwise.
        for (properties, expected) in [
            (&[][..], 1),
            (&[(b"irot", 0)], 1),
            (&[(b"irot", 1)], 8),
            (&[(b"irot", 2)], 3),
            (&[(b"irot", 3)], 6),
            (&[(b"imir", 1)], 2),
            (&[(b"imir", 0)], 4),
            (&[(b"irot", 3), (b"imir", 1)], 5),
            (&[(b"imir", 1), (b"irot", 1)], 5),
            (&[(b"irot", 1), (b"imir", 1)], 7),
            (&[(b"imir", 0), (b"imir", 1)], 3),
            (&[(b"irot", 1), (b"irot", 1), (b"imir", 1), (b"imir", 1)], 3),
        ] {
            assert_eq!(transformed(properties), expected, "{properties:?}");
        }
    }

    fn clap(fields: [u32; 8]) -> Result<Rectangle, Error> {
        let mut transform = Transform::new((100, 50));
        let content: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
        transform.apply(b"clap", &content)?;
        Ok(transform.crop)
    }

    #[test]
    fn crop_is_centred_and_moved_by_its_offset() {
        let rectangle = |left, top, width, height| Rectangle { left, top, width, height };
        assert_eq!(clap([60, 1, 40, 1, 0, 1, 0, 1]).unwrap(), rectangle(20, 5, 60, 40));
        assert_eq!(
            clap([60, 1, 40, 1, 10, 1, (-5i32).cast_unsigned(), 1]).unwrap(),
            rectangle(30, 0, 60, 40)
        );
        assert_eq!(clap([99, 1, 49, 1, (-1i32).cast_unsigned(), 2, 1, 2]).unwrap(), rectangle(0, 1, 99, 49));
    }

    #[test]
    fn crop_outside_the_picture_is_refused() {
        for fields in [
            [101, 1, 50, 1, 0, 1, 0, 1],
            [0, 1, 50, 1, 0, 1, 0, 1],
            [100, 1, 50, 1, 1, 1, 0, 1],
            [100, 0, 50, 1, 0, 1, 0, 1],
            [100, 1, 50, 1, 0, u32::MAX, 0, 0],
            [u32::MAX, 1, u32::MAX, 1, i32::MAX.cast_unsigned(), u32::MAX, 0, 1],
        ] {
            assert!(clap(fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn crop_after_a_rotation_is_unsupported() {
        let mut transform = Transform::new((100, 50));
        transform.apply(b"irot", &[1]).unwrap();
        assert!(transform.apply(b"clap", &[0; 32]).unwrap_err().is_unsupported());
    }
}
