//! Decodes the slices of one coded picture.

use heifer_hevc_dec::{
    nal::NalUnit,
    params::ParameterSets,
    recon::{Frame, Reconstructor},
    slice::SliceHeader,
    syntax::{Picture, decode_slice_segment},
};

use crate::error::Error;

/// Maximum numbers of columns and rows of tiles in a coded picture. HEVC allows no more in its levels up to 6.2.
///
/// The decoder searches the list of columns and of rows for every block, twice, before it decodes the first one. With
/// 2,048 columns, this took half a second for a picture of 64 megapixels that has a hundred bytes.
const MAX_TILE_COLUMNS: u32 = 20;
const MAX_TILE_ROWS: u32 = 22;

/// A picture of which some slice segments are decoded.
///
/// Accepts only segments that continue the picture. Each of its blocks is therefore decoded once. The decoder itself
/// would decode a segment from any address on, so a few kilobytes of segments could repeat the whole picture thousands
/// of times, and it would panic if a segment followed the parameter sets of a larger picture.
pub(crate) struct Slices<'sets> {
    sets: &'sets ParameterSets,
    picture: Picture<'sets>,
    reconstructor: Reconstructor<'sets>,
    /// Header of the last segment that depends on no other.
    independent: Option<SliceHeader>,
    /// Id of the parameter set of the picture.
    pps: u8,
}

impl<'sets> Slices<'sets> {
    /// Prepares a picture according to its first slice. `max_pixels` is the number of pixels that the plan states.
    pub(crate) fn new(
        sets: &'sets ParameterSets,
        first: &NalUnit<'_>,
        max_pixels: u64,
    ) -> Result<Self, Error> {
        let pps_id = SliceHeader::parse(&first.rbsp, &first.header, sets, None)?.slice_pic_parameter_set_id;
        let (pps, sps) = sets.get(pps_id.into())?;
        if u64::from(sps.pic_width_in_luma_samples) * u64::from(sps.pic_height_in_luma_samples) > max_pixels {
            return Err(Error::Corrupt("a coded picture is larger than its parameter sets state"));
        }
        if pps
            .tiles
            .as_ref()
            .is_some_and(|tiles| tiles.num_columns > MAX_TILE_COLUMNS || tiles.num_rows > MAX_TILE_ROWS)
        {
            return Err(Error::unsupported(format!(
                "a coded picture of more than {MAX_TILE_COLUMNS}×{MAX_TILE_ROWS} tiles"
            )));
        }
        Ok(Self {
            sets,
            picture: Picture::new(sps, pps),
            reconstructor: Reconstructor::new(sps, pps),
            independent: None,
            pps: pps_id,
        })
    }

    /// Decodes the next slice segment.
    pub(crate) fn decode(&mut self, unit: &NalUnit<'_>) -> Result<(), Error> {
        let header = SliceHeader::parse(&unit.rbsp, &unit.header, self.sets, self.independent.as_ref())?;
        if header.slice_pic_parameter_set_id != self.pps {
            return Err(Error::Corrupt("the slices of a picture use different parameter sets"));
        }
        // The header of a dependent segment can name another parameter set unnoticed, so the address can be too large.
        let address = self.picture.layout.rs_to_ts.get(header.slice_segment_address as usize);
        if address != Some(&self.picture.decoded_ctbs) {
            return Err(Error::Corrupt("a slice does not begin where the previous one ends"));
        }
        self.reconstructor.start_slice(&header);
        let data = unit.rbsp.get(header.header_size..).unwrap_or_default();
        let qp = header.slice_qp_y(self.sets)?;
        decode_slice_segment(&mut self.picture, &header, qp, data, &mut self.reconstructor)?;
        if let Some(error) = self.reconstructor.error.take() {
            return Err(error.into());
        }
        if !header.dependent_slice_segment_flag {
            self.independent = Some(header);
        }
        Ok(())
    }

    /// Returns the picture after its last slice segment.
    pub(crate) fn finish(self) -> Result<Frame, Error> {
        if !self.picture.is_complete() {
            return Err(Error::Corrupt("a coded picture is incomplete"));
        }
        let frame = self.reconstructor.finish(false);
        let sps = self.picture.sps;
        // A picture that is shown completely need not be copied.
        Ok(if sps.conf_win_offsets == [0; 4] { frame } else { frame.cropped(sps) })
    }
}

/// Returns true if a slice segment is the first one of its picture, which is what its first bit states.
pub(crate) fn begins_picture(unit: &NalUnit<'_>) -> bool {
    unit.rbsp.first().is_some_and(|byte| byte & 0x80 != 0)
}
