//! Grids, which are pictures that consist of tiles.

use crate::{boxes::Reader, container::Item, error::Error, geometry::Rectangle, parts::Size};

/// The data of a grid item.
pub(crate) struct Grid {
    columns: u32,
    rows: u32,
    pub(crate) size: Size,
}

impl Grid {
    pub(crate) fn read(item: &Item<'_>) -> Result<Self, Error> {
        /// Length in bytes of the data with sizes of 32 bits.
        const MAX_BYTES: u64 = 12;
        let data = item.location()?.data()?;
        let length = data.length().min(MAX_BYTES);
        let bytes = data.cursor().bytes(usize::try_from(length).unwrap_or_default())?;
        let mut reader = Reader(&bytes);
        if reader.u8()? != 0 {
            return Err(Error::unsupported("a grid of a later version"));
        }
        let has_wide_sizes = reader.u8()? & 1 != 0;
        let (rows, columns) = (u32::from(reader.u8()?) + 1, u32::from(reader.u8()?) + 1);
        let size = (reader.id(has_wide_sizes)?, reader.id(has_wide_sizes)?);
        Ok(Self { columns, rows, size })
    }

    /// Returns the position of each tile.
    pub(crate) fn tile_positions(
        &self,
        (width, height): Size,
        tile_count: usize,
    ) -> Result<impl Iterator<Item = Rectangle> + use<>, Error> {
        let &Self { columns, rows, size } = self;
        if u64::from(columns * rows) != tile_count as u64 {
            return Err(Error::Corrupt("a grid has a wrong number of tiles"));
        }
        if width.saturating_mul(columns) < size.0 || height.saturating_mul(rows) < size.1 {
            return Err(Error::Corrupt("the tiles of a grid do not cover it"));
        }
        Ok((0..rows * columns).map(move |index| Rectangle {
            left: width.saturating_mul(index % columns),
            top: height.saturating_mul(index / columns),
            width,
            height,
        }))
    }
}
