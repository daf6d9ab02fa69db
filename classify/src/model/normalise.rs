//! Converts crops to the network's input by normalising their bytes.
//!
//! The normalised value of a byte is `(byte / 255 - mean) / std`, with the `mean` and `std` of its channel.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::constants::{CHANNELS, CROP_PIXEL_COUNT, CROP_SIDE, spec};
use crate::pixels::Crop;

/// Number of bytes in a word. Bytes are uploaded to the GPU in words, because GPU shaders have no byte type.
const WORD_BYTES: usize = 4;

/// Normalises crops, on the CPU or on the GPU.
#[derive(Clone, Debug)]
pub(super) enum Normaliser {
    /// Normalises on the CPU with a table lookup per byte.
    Cpu(Box<[[f32; 256]; CHANNELS]>),
    /// Normalises on the GPU. The uploaded bytes are a quarter of the size of the normalised floats.
    Gpu(Box<GpuNormaliser>),
}

impl Normaliser {
    /// Creates a normaliser that looks each byte up in a table on the CPU.
    pub(super) fn on_cpu() -> Self {
        Self::Cpu(Box::new(build_lookup_tables()))
    }

    /// Creates a normaliser that computes on the GPU `device`.
    pub(super) fn on_gpu(device: &Device) -> Self {
        Self::Gpu(Box::new(GpuNormaliser::new(device)))
    }

    /// Returns the network's input for `batch`.
    ///
    /// The input has the shape `[batch_size, CHANNELS, CROP_SIDE, CROP_SIDE]`. The first images are the
    /// crops, in the order of `batch`, and the remaining images are padding. The caller guarantees that each
    /// crop is `CROP_SIDE` pixels wide and high and that `batch` has at most `batch_size` crops.
    pub(super) fn normalise(&self, batch: &[Crop], batch_size: usize, device: &Device) -> Tensor<4> {
        let shape = [batch_size, CROP_SIDE, CROP_SIDE, CHANNELS];
        let value_count = batch_size * CHANNELS * CROP_PIXEL_COUNT;
        match self {
            Self::Cpu(tables) => {
                let [red, green, blue] = &**tables;
                let mut nhwc = Vec::with_capacity(value_count);
                for crop in batch {
                    let (pixels, _) = crop.rgb().as_chunks::<CHANNELS>();
                    nhwc.extend(pixels.iter().flat_map(|&[r, g, b]| {
                        [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)]]
                    }));
                }
                nhwc.resize(value_count, 0.0);
                // The permutation changes only the strides. The channels of a pixel stay next to each other
                // in memory, as the CPU kernels need them.
                Tensor::<4>::from_data(TensorData::new(nhwc, shape), device).permute([0, 3, 1, 2])
            }
            Self::Gpu(normaliser) => {
                let mut bytes = Vec::with_capacity(value_count);
                for crop in batch {
                    bytes.extend_from_slice(crop.rgb());
                }
                bytes.resize(value_count, 0);
                normaliser.normalise(bytes, shape)
            }
        }
    }
}

/// Builds a table for each channel that maps every byte to its normalised value.
fn build_lookup_tables() -> [[f32; 256]; CHANNELS] {
    let mut tables = [[0.0; 256]; CHANNELS];
    for ((table, mean), std) in tables.iter_mut().zip(spec::MEAN).zip(spec::STD) {
        for (entry, value) in table.iter_mut().zip(0_u8..=255) {
            *entry = (f32::from(value) / 255.0 - mean) / std;
        }
    }
    tables
}

/// Unpacks and normalises bytes on the GPU, with one product and one sum per value.
#[derive(Clone, Debug)]
pub(super) struct GpuNormaliser {
    /// `1 / (255 * std)`, shape `[1, 1, 1, channels]`.
    factor: Tensor<4>,
    /// `-mean / std`, shape `[1, 1, 1, channels]`.
    offset: Tensor<4>,
    /// Bit offset of each byte within a word, shape `[1, WORD_BYTES]`.
    shifts: Tensor<2, Int>,
    device: Device,
}

impl GpuNormaliser {
    fn new(device: &Device) -> Self {
        let channels = spec::MEAN.len();
        let channel_tensor =
            |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [1, 1, 1, channels]), device);
        let factor = spec::STD.iter().map(|std| 1.0 / (255.0 * std)).collect();
        let offset = spec::MEAN.iter().zip(spec::STD).map(|(mean, std)| -mean / std).collect();
        let shifts = TensorData::new(vec![0_i32, 8, 16, 24], [1, WORD_BYTES]);
        Self {
            factor: channel_tensor(factor),
            offset: channel_tensor(offset),
            shifts: Tensor::from_data(shifts, device),
            device: device.clone(),
        }
    }

    /// Normalises `bytes`, which have the shape `[batch, height, width, channels]`.
    ///
    /// The result has the shape `[batch, channels, height, width]`.
    fn normalise(&self, mut bytes: Vec<u8>, shape: [usize; 4]) -> Tensor<4> {
        let value_count = bytes.len();
        bytes.resize(value_count.next_multiple_of(WORD_BYTES), 0);
        let words: Vec<i32> = bytes.as_chunks().0.iter().copied().map(i32::from_le_bytes).collect();
        let word_count = words.len();
        let words = Tensor::<2, Int>::from_data(TensorData::new(words, [word_count, 1]), &self.device);
        // The right shift fills the upper bits with copies of the sign bit. The mask clears all bits above
        // the byte.
        let unpacked = words.bitwise_right_shift(self.shifts.clone()).bitwise_and_scalar(0xff).float();
        // The bytes that were added to fill the last word are removed.
        let values = match word_count * WORD_BYTES {
            unpacked_count if unpacked_count == value_count => unpacked.reshape(shape),
            unpacked_count => unpacked.reshape([unpacked_count]).slice(0..value_count).reshape(shape),
        };
        (values * self.factor.clone() + self.offset.clone()).permute([0, 3, 1, 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    #[test]
    fn lookup_tables_map_0_and_255_by_the_formula() {
        for ((table, mean), std) in build_lookup_tables().iter().zip(spec::MEAN).zip(spec::STD) {
            assert!((table[0] + mean / std).abs() < 1e-6);
            assert!((table[255] - (1.0 - mean) / std).abs() < 1e-6);
        }
    }

    #[test]
    fn gpu_normaliser_equals_the_formula_with_and_without_a_partial_word() {
        let normaliser = GpuNormaliser::new(&Backend::default().device());
        // The bytes of the first shape fill whole words. The bytes of the second shape leave a partial word.
        for [batch, height, width] in [[2, 8, 16], [1, 5, 3]] {
            let bytes: Vec<u8> =
                (0..batch * height * width * 3).map(|index| u8::try_from(index * 7 % 256).unwrap()).collect();
            let normalised = normaliser.normalise(bytes.clone(), [batch, height, width, 3]);
            assert_eq!(normalised.dims(), [batch, 3, height, width]);
            let values = normalised.permute([0, 2, 3, 1]).try_to_vec_as::<f32>().unwrap();
            for (index, (value, byte)) in values.iter().zip(bytes).enumerate() {
                let (mean, std) = (spec::MEAN[index % 3], spec::STD[index % 3]);
                let expected = (f32::from(byte) / 255.0 - mean) / std;
                assert!((value - expected).abs() < 1e-5, "{value} instead of {expected} for {byte}");
            }
        }
    }
}
