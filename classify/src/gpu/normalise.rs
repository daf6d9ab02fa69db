//! From the bytes of pixels to what the network wants to see, on the GPU: a quarter of the bytes travel.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::network::spec;

/// Bytes of a word, which is what travels: shaders have no bytes.
const WORD: usize = 4;

/// `(value / 255 - mean) / std` for each channel, as a product and a sum.
#[derive(Clone, Debug)]
pub(crate) struct Normalise {
    /// `[1, 1, 1, channels]`
    factor: Tensor<4>,
    /// `[1, 1, 1, channels]`
    offset: Tensor<4>,
    /// `[1, WORD]`: where in a word each of its bytes begins.
    shifts: Tensor<2, Int>,
    device: Device,
}

impl Normalise {
    pub(crate) fn new(device: &Device) -> Self {
        let channels = spec::MEAN.len();
        let row =
            |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [1, 1, 1, channels]), device);
        let factor = spec::STD.iter().map(|std| 1.0 / (255.0 * std)).collect();
        let offset = spec::MEAN.iter().zip(spec::STD).map(|(mean, std)| -mean / std).collect();
        let shifts = TensorData::new(vec![0_i32, 8, 16, 24], [1, WORD]);
        Self {
            factor: row(factor),
            offset: row(offset),
            shifts: Tensor::from_data(shifts, device),
            device: device.clone(),
        }
    }

    /// Pixels of `[batch, height, width, channels]` bytes as `[batch, channels, height, width]`.
    pub(crate) fn nchw(&self, mut bytes: Vec<u8>, shape: [usize; 4]) -> Tensor<4> {
        let values = bytes.len();
        bytes.resize(values.next_multiple_of(WORD), 0);
        let words: Vec<i32> = bytes.as_chunks().0.iter().copied().map(i32::from_le_bytes).collect();
        let count = words.len();
        let words = Tensor::<2, Int>::from_data(TensorData::new(words, [count, 1]), &self.device);
        // The sign follows the shift, and is cut off with what is above the byte.
        let unpacked = words.bitwise_right_shift(self.shifts.clone()).bitwise_and_scalar(0xff).float();
        let pixels = match count * WORD {
            whole if whole == values => unpacked.reshape(shape),
            whole => unpacked.reshape([whole]).slice(0..values).reshape(shape),
        };
        (pixels * self.factor.clone() + self.offset.clone()).permute([0, 3, 1, 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    #[test]
    fn bytes_become_what_the_network_was_trained_on() {
        let normalise = Normalise::new(&Backend::default().device());
        // One that fills its words, and one that does not.
        for [batch, height, width] in [[2, 8, 16], [1, 5, 3]] {
            let bytes: Vec<u8> =
                (0..batch * height * width * 3).map(|index| u8::try_from(index * 7 % 256).unwrap()).collect();
            let planes = normalise.nchw(bytes.clone(), [batch, height, width, 3]);
            assert_eq!(planes.dims(), [batch, 3, height, width]);
            let values = planes.permute([0, 2, 3, 1]).try_to_vec_as::<f32>().unwrap();
            for (index, (value, byte)) in values.iter().zip(bytes).enumerate() {
                let (mean, std) = (spec::MEAN[index % 3], spec::STD[index % 3]);
                let expected = (f32::from(byte) / 255.0 - mean) / std;
                assert!((value - expected).abs() < 1e-5, "{value} instead of {expected} for {byte}");
            }
        }
    }
}
