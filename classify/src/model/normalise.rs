//! Converts crops to the network's input by normalising their bytes.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::constants::{CHANNELS, GEOMETRY, spec};
use crate::pixels::Crop;

/// Number of bytes in a word. Bytes are uploaded to the GPU in words, because GPU shaders have no byte type.
const WORD_BYTES: usize = 4;

/// The formula that turns a byte into a value of the network's input, with numbers for each of the channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Normalisation<const CHANNELS: usize> {
    /// `(byte / 255 - mean) / std`
    MeanStd {
        /// Mean per channel.
        mean: [f32; CHANNELS],
        /// Standard deviation per channel.
        std: [f32; CHANNELS],
    },
    /// `byte * scale + offset`
    ScaleOffset {
        /// Factor per channel.
        scale: [f32; CHANNELS],
        /// Summand per channel.
        offset: [f32; CHANNELS],
    },
}

impl<const CHANNELS: usize> Normalisation<CHANNELS> {
    /// Returns the value of `byte` in the channel with the index `channel`.
    pub fn apply(&self, channel: usize, byte: u8) -> f32 {
        match self {
            Self::MeanStd { mean, std } => (f32::from(byte) / 255.0 - mean[channel]) / std[channel],
            Self::ScaleOffset { scale, offset } => f32::from(byte) * scale[channel] + offset[channel],
        }
    }

    /// Returns the factors and summands that compute the same value with one product and one sum, per channel.
    fn factors_and_offsets(&self) -> ([f32; CHANNELS], [f32; CHANNELS]) {
        match *self {
            Self::MeanStd { mean, std } => (
                std.map(|std| 1.0 / (255.0 * std)),
                std::array::from_fn(|channel| -mean[channel] / std[channel]),
            ),
            Self::ScaleOffset { scale, offset } => (scale, offset),
        }
    }

    /// Builds a table for each channel that maps every byte to its normalised value.
    fn lookup_tables(&self) -> [[f32; 256]; CHANNELS] {
        let mut tables = [[0.0; 256]; CHANNELS];
        for (channel, table) in tables.iter_mut().enumerate() {
            for (entry, byte) in table.iter_mut().zip(0_u8..=255) {
                *entry = self.apply(channel, byte);
            }
        }
        tables
    }
}

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
        Self::Cpu(Box::new(spec::NORMALISATION.lookup_tables()))
    }

    /// Creates a normaliser that computes on the GPU `device`.
    pub(super) fn on_gpu(device: &Device) -> Self {
        Self::Gpu(Box::new(GpuNormaliser::new(&spec::NORMALISATION, device)))
    }

    /// Returns the network's input for `batch`.
    ///
    /// The input has the shape `[batch_size, channels, height, width]`. The first images are the crops, in the
    /// order of `batch`, and the remaining images are padding. The caller guarantees that each crop has the
    /// shape of the network's input and that `batch` has at most `batch_size` crops.
    pub(super) fn normalise(&self, batch: &[Crop], batch_size: usize, device: &Device) -> Tensor<4> {
        let shape = [batch_size, GEOMETRY.crop.height as usize, GEOMETRY.crop.width as usize, CHANNELS];
        let value_count = batch_size * GEOMETRY.crop.byte_count();
        match self {
            Self::Cpu(tables) => {
                let mut nhwc = Vec::with_capacity(value_count);
                for crop in batch {
                    look_up(tables, crop.bytes(), &mut nhwc);
                }
                nhwc.resize(value_count, 0.0);
                // The permutation changes only the strides. The channels of a pixel stay next to each other
                // in memory, as the CPU kernels need them.
                Tensor::<4>::from_data(TensorData::new(nhwc, shape), device).permute([0, 3, 1, 2])
            }
            Self::Gpu(normaliser) => {
                let mut bytes = Vec::with_capacity(value_count);
                for crop in batch {
                    bytes.extend_from_slice(crop.bytes());
                }
                bytes.resize(value_count, 0);
                normaliser.normalise(bytes, shape)
            }
        }
    }
}

/// Appends the normalised values of the pixels `bytes` to `values`.
fn look_up<const CHANNELS: usize>(tables: &[[f32; 256]; CHANNELS], bytes: &[u8], values: &mut Vec<f32>) {
    let (pixels, _) = bytes.as_chunks::<CHANNELS>();
    values.extend(pixels.iter().flat_map(|pixel| {
        std::array::from_fn::<f32, CHANNELS, _>(|channel| tables[channel][usize::from(pixel[channel])])
    }));
}

/// Unpacks and normalises bytes on the GPU, with one product and one sum per value.
#[derive(Clone, Debug)]
pub(super) struct GpuNormaliser {
    /// Factor per channel, shape `[1, 1, 1, channels]`.
    factor: Tensor<4>,
    /// Summand per channel, shape `[1, 1, 1, channels]`.
    offset: Tensor<4>,
    /// Bit offset of each byte within a word, shape `[1, WORD_BYTES]`.
    shifts: Tensor<2, Int>,
    device: Device,
}

impl GpuNormaliser {
    fn new<const CHANNELS: usize>(normalisation: &Normalisation<CHANNELS>, device: &Device) -> Self {
        let channel_tensor = |values: [f32; CHANNELS]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 1, 1, CHANNELS]), device)
        };
        let (factor, offset) = normalisation.factors_and_offsets();
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

    const MEAN_STD: Normalisation<3> =
        Normalisation::MeanStd { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    const SCALE_OFFSET: Normalisation<1> =
        Normalisation::ScaleOffset { scale: [1.0 / 127.5], offset: [-1.0] };

    #[test]
    fn lookup_tables_map_0_and_255_by_the_formula() {
        let tables = MEAN_STD.lookup_tables();
        for (table, (mean, std)) in tables.iter().zip([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]) {
            assert!((table[0] + mean / std).abs() < 1e-6);
            assert!((table[255] - (1.0 - mean) / std).abs() < 1e-6);
        }
        let [table] = SCALE_OFFSET.lookup_tables();
        assert_eq!((table[0], table[255]), (-1.0, 1.0));
    }

    #[test]
    fn pixels_are_looked_up_in_the_table_of_their_channel() {
        let mut values = Vec::new();
        look_up(&[[1.0; 256], [2.0; 256], [3.0; 256]], &[0, 9, 255, 7, 7, 7], &mut values);
        assert_eq!(values, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        values.clear();
        look_up(&SCALE_OFFSET.lookup_tables(), &[0, 255], &mut values);
        assert_eq!(values, [-1.0, 1.0]);
    }

    /// Asserts that the GPU normaliser computes the formula, on pictures that are not square.
    fn check_gpu_normaliser<const CHANNELS: usize>(normalisation: Normalisation<CHANNELS>) {
        let normaliser = GpuNormaliser::new(&normalisation, &Backend::default().device());
        // The bytes of the first shape fill whole words. The bytes of the second shape leave a partial word.
        for [batch, height, width] in [[2, 8, 16], [1, 5, 3]] {
            let bytes: Vec<u8> = (0..batch * height * width * CHANNELS)
                .map(|index| u8::try_from(index * 7 % 256).unwrap())
                .collect();
            let normalised = normaliser.normalise(bytes.clone(), [batch, height, width, CHANNELS]);
            assert_eq!(normalised.dims(), [batch, CHANNELS, height, width]);
            let values = normalised.permute([0, 2, 3, 1]).try_to_vec_as::<f32>().unwrap();
            for (index, (value, byte)) in values.iter().zip(bytes).enumerate() {
                let expected = normalisation.apply(index % CHANNELS, byte);
                assert!((value - expected).abs() < 1e-5, "{value} instead of {expected} for {byte}");
            }
        }
    }

    #[test]
    fn gpu_normaliser_equals_the_formula_with_and_without_a_partial_word() {
        check_gpu_normaliser(MEAN_STD);
        check_gpu_normaliser(SCALE_OFFSET);
    }
}
