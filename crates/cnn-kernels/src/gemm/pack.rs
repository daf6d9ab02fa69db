//! Weights in the order in which the blocks read them.

use crate::{
    aligned::AlignedBuffer,
    isa::Isa,
    shape::{ShapeError, check_length, volume},
};

/// A matrix of `depth` rows and `width` columns with a bias for each column.
///
/// The columns are cut into panels of a few vectors, as even as can be; a panel is stored row by row,
/// filled up with zeros to whole vectors, so that a block reads it from front to back.
#[derive(Clone, Debug)]
pub(crate) struct PackedMatrix {
    isa: Isa,
    depth: usize,
    width: usize,
    panels: usize,
    /// Vectors of every panel; the first `wide_panels` have one more.
    narrow_vectors: usize,
    wide_panels: usize,
    weights: AlignedBuffer,
    bias: AlignedBuffer,
}

impl PackedMatrix {
    /// Packs the matrix whose element at `(row, column)` is `weight(row, column)`.
    pub(crate) fn new(
        isa: Isa,
        depth: usize,
        bias: &[f32],
        weight: impl Fn(usize, usize) -> f32,
    ) -> Result<Self, ShapeError> {
        let width = bias.len();
        let lanes = isa.lanes();
        let vectors = width.div_ceil(lanes);
        let padded_width = vectors * lanes;
        let len = volume(&[depth, padded_width])?;
        let panels = vectors.div_ceil(isa.panel());
        let mut packed = Self {
            isa,
            depth,
            width,
            panels,
            narrow_vectors: vectors / panels,
            wide_panels: vectors % panels,
            weights: AlignedBuffer::zeroed(len),
            bias: AlignedBuffer::zeroed(padded_width),
        };
        packed.bias[..width].copy_from_slice(bias);
        let (mut first, mut offset) = (0, 0);
        for panel in 0..panels {
            let columns = packed.panel_vectors(panel) * lanes;
            for (row, packed_row) in
                packed.weights[offset..offset + depth * columns].chunks_exact_mut(columns).enumerate()
            {
                for (value, column) in packed_row.iter_mut().zip(first..width) {
                    *value = weight(row, column);
                }
            }
            first += columns;
            offset += depth * columns;
        }
        Ok(packed)
    }

    /// Packs `weights`, which are `[columns][depth]` as ONNX has them.
    pub(crate) fn from_columns(
        isa: Isa,
        depth: usize,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<Self, ShapeError> {
        check_length("weights", volume(&[depth, bias.len()])?, weights.len())?;
        Self::new(isa, depth, bias, |row, column| weights[column * depth + row])
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Bytes of the packed weights.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.weights)
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    /// Vectors of a row of a panel.
    pub(crate) fn panel_vectors(&self, panel: usize) -> usize {
        self.narrow_vectors + usize::from(panel < self.wide_panels)
    }

    /// The panel that begins at `offset`, and all behind it.
    pub(crate) fn panel(&self, offset: usize) -> &[f32] {
        &self.weights[offset..]
    }

    /// The bias, filled up with zeros to whole vectors.
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }
}
