//! Packs weights into the order in which the matrix product reads them.

use crate::{
    aligned::AlignedBuffer,
    isa::Isa,
    shape::{ShapeError, check_length, checked_volume},
};

/// A matrix of `depth` rows and `width` columns, with a bias for each column.
///
/// The columns are divided into panels. The rows of a panel are a few vectors long, padded with zeros to
/// whole vectors, and stored one after another, so that a panel is read sequentially. A row of a wide panel
/// has one vector more than a row of a narrow panel.
#[derive(Clone, Debug)]
pub(crate) struct PackedMatrix {
    isa: Isa,
    depth: usize,
    width: usize,
    panel_count: usize,
    /// Number of vectors per row of a narrow panel.
    narrow_panel_vectors: usize,
    /// Number of wide panels, which come first.
    wide_panel_count: usize,
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
        let lane_count = isa.lane_count();
        let vectors_per_row = width.div_ceil(lane_count);
        let padded_width = vectors_per_row * lane_count;
        let len = checked_volume(&[depth, padded_width])?;
        let panel_count = vectors_per_row.div_ceil(isa.max_panel_vectors());
        let mut packed = Self {
            isa,
            depth,
            width,
            panel_count,
            narrow_panel_vectors: vectors_per_row / panel_count,
            wide_panel_count: vectors_per_row % panel_count,
            weights: AlignedBuffer::zeroed(len),
            bias: AlignedBuffer::zeroed(padded_width),
        };
        packed.bias[..width].copy_from_slice(bias);
        let (mut first_column, mut offset) = (0, 0);
        for panel in 0..panel_count {
            let panel_width = packed.vectors_per_panel_row(panel) * lane_count;
            for (row, packed_row) in
                packed.weights[offset..offset + depth * panel_width].chunks_exact_mut(panel_width).enumerate()
            {
                for (value, column) in packed_row.iter_mut().zip(first_column..width) {
                    *value = weight(row, column);
                }
            }
            first_column += panel_width;
            offset += depth * panel_width;
        }
        Ok(packed)
    }

    /// Packs `weights` of shape `[columns][rows]`, which is the layout of ONNX.
    pub(crate) fn from_columns(
        isa: Isa,
        depth: usize,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<Self, ShapeError> {
        check_length("weights", checked_volume(&[depth, bias.len()])?, weights.len())?;
        Self::new(isa, depth, bias, |row, column| weights[column * depth + row])
    }

    /// Returns the instruction set for which the matrix was packed.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Returns the number of rows, which is the number of products per element of the output.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Returns the number of columns.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Returns the size of the packed weights in bytes.
    pub(crate) fn byte_count(&self) -> usize {
        size_of_val::<[f32]>(&self.weights)
    }

    /// Returns the number of panels.
    pub(crate) fn panel_count(&self) -> usize {
        self.panel_count
    }

    /// Returns the number of vectors per row of panel `panel`.
    pub(crate) fn vectors_per_panel_row(&self, panel: usize) -> usize {
        self.narrow_panel_vectors + usize::from(panel < self.wide_panel_count)
    }

    /// Returns the weights from element `offset` on: the panel that begins there, and the panels after it.
    pub(crate) fn weights_from(&self, offset: usize) -> &[f32] {
        &self.weights[offset..]
    }

    /// Returns the bias, padded with zeros to whole vectors.
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }
}
