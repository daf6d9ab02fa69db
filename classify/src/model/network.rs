//! The network. The build generates its burn code and its weights from the model's ONNX file.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use fused::Isa;
use futures_executor::block_on;
use futures_util::FutureExt;

use super::{
    constants::{GEOMETRY, INPUT_SHAPE, spec::OUTPUT_COUNT},
    normalise::Normaliser,
};
use crate::{backend::Backend, pixels::Crop, precision::Precision};

#[expect(clippy::allow_attributes, reason = "the lints that the generated code violates depend on the model")]
#[allow(
    warnings,
    clippy::all,
    clippy::restriction,
    reason = "burn-onnx generates this code and decides its style"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/model/network.rs"));
}

/// Reason why the network gave no outputs.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The input has the wrong number of values.
    #[error("the input has {got} values, but the network expects {expected}")]
    Input {
        /// Number of input values.
        got: usize,
        /// Expected number of input values.
        expected: usize,
    },
    /// The output has a different shape than the graph that the network was generated from.
    #[error("the network's output has shape {got:?}, expected {expected:?}")]
    Output {
        /// Shape of the output.
        got: [usize; 2],
        /// Expected shape, which is the number of images in the batch and the number of outputs per image.
        expected: [usize; 2],
    },
    /// The backend failed to return the outputs.
    #[error("the outputs could not be read: {0}")]
    Read(String),
}

/// The network with its weights on a backend. Clones share the weights.
#[derive(Clone, Debug)]
pub struct Network {
    model: generated::Model,
    precision: Precision,
    device: Device,
    normaliser: Normaliser,
}

impl Network {
    /// Loads the compiled-in weights for `backend`.
    pub fn load(backend: Backend) -> Self {
        Self::load_with_isa(backend, None)
    }

    /// Loads the compiled-in weights for `backend`. The CPU kernels use no wider instruction set than `isa`.
    ///
    /// `None` selects the widest instruction set of this CPU. Backends without CPU kernels ignore `isa`.
    pub fn load_with_isa(backend: Backend, isa: Option<Isa>) -> Self {
        Self::load_weights(backend, isa, Precision::default())
    }

    /// Loads the compiled-in weights for `backend` in `precision`.
    ///
    /// The GPU must support `precision`, which [`gpu::open`](crate::gpu::open) checks.
    pub fn load_with_precision(backend: Backend, precision: Precision) -> Self {
        Self::load_weights(backend, None, precision)
    }

    fn load_weights(backend: Backend, isa: Option<Isa>, precision: Precision) -> Self {
        let device = backend.device();
        let model = fused::load_with(backend.execution(isa), || generated::Model::from_embedded(&device));
        let normaliser = match backend.is_gpu() {
            true => Normaliser::on_gpu(&device),
            false => Normaliser::on_cpu(),
        };
        Self { model: precision.convert_weights(model), precision, device, normaliser }
    }

    /// Computes the logits of `batch`.
    ///
    /// Returns one entry per crop, in the order of `batch`. Each entry has one value per output.
    ///
    /// # Errors
    /// Returns [`NetworkError::Input`] when `batch` is empty or a crop does not have the shape
    /// [`INPUT_SHAPE`], and [`NetworkError::Output`] or [`NetworkError::Read`] when the network's output has the wrong
    /// shape or cannot be read.
    pub fn logits(&self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, NetworkError> {
        block_on(self.submit(batch, batch.len())?)
    }

    /// Computes the logits of images that are already normalised.
    ///
    /// `nchw` has the shape `[image_count, channels, height, width]` in row-major order. Returns one entry
    /// per image, in the order of `nchw`. Each entry has one value per output.
    ///
    /// # Errors
    /// Returns [`NetworkError::Input`] when `image_count` is 0 or `nchw` has the wrong number of values, and
    /// [`NetworkError::Output`] or [`NetworkError::Read`] when the network's output has the wrong shape or
    /// cannot be read.
    pub fn logits_of_tensor(&self, nchw: &[f32], image_count: usize) -> Result<Vec<Vec<f32>>, NetworkError> {
        let expected = image_count * GEOMETRY.crop.byte_count();
        if image_count == 0 || nchw.len() != expected {
            return Err(NetworkError::Input { got: nchw.len(), expected });
        }
        let [channels, height, width] = INPUT_SHAPE;
        let data = TensorData::new(nchw.to_vec(), [image_count, channels, height, width]);
        block_on(self.forward(Tensor::from_data(data, &self.device), image_count)?)
    }

    /// Submits `batch` to the device and returns a future of its logits.
    ///
    /// The device has received the work when this function returns. The batch is padded to `batch_size`
    /// images. The future returns one entry per crop, in the order of `batch`, and drops the logits of the
    /// padding.
    ///
    /// # Errors
    /// Returns [`NetworkError::Input`] when `batch` is empty, has more than `batch_size` crops, or has a
    /// crop that does not have the shape [`INPUT_SHAPE`]. Returns [`NetworkError::Output`] when the output
    /// has the wrong shape. The future returns [`NetworkError::Read`] when the output cannot be read.
    pub(crate) fn submit(
        &self,
        batch: &[Crop],
        batch_size: usize,
    ) -> Result<impl Future<Output = Result<Vec<Vec<f32>>, NetworkError>> + Send + 'static, NetworkError>
    {
        let (image_count, image_len) = (batch.len(), GEOMETRY.crop.byte_count());
        let got = batch.iter().map(|crop| crop.bytes().len()).sum();
        if image_count == 0 || image_count > batch_size || got != image_count * image_len {
            let expected = image_count.clamp(1, batch_size.max(1)) * image_len;
            return Err(NetworkError::Input { got, expected });
        }
        self.forward(self.normaliser.normalise(batch, batch_size, &self.device), image_count)
    }

    /// Submits `input` to the device and returns a future of the logits of the first `image_count` images.
    fn forward(
        &self,
        input: Tensor<4>,
        image_count: usize,
    ) -> Result<impl Future<Output = Result<Vec<Vec<f32>>, NetworkError>> + Send + 'static, NetworkError>
    {
        let batch_size = input.dims()[0];
        let output: Tensor<2> = self.model.forward(input.cast(self.precision.dtype()));
        let (got, expected) = (output.dims(), [batch_size, OUTPUT_COUNT]);
        if got != expected {
            return Err(NetworkError::Output { got, expected });
        }
        let output = output.cast(FloatDType::F32);
        let mut pending_data = Box::pin(output.into_data_async());
        // The first poll queues the copy to the host, so that the copy runs before the next batch.
        let first_poll = (&mut pending_data).now_or_never();
        Ok(async move {
            let data = match first_poll {
                Some(data) => data,
                None => pending_data.await,
            };
            let read_error =
                |error: &dyn std::fmt::Display| NetworkError::Read(root_cause(&error.to_string()).to_owned());
            let values = data.map_err(|error| read_error(&error))?;
            let values = values.try_to_vec_as::<f32>().map_err(|error| read_error(&error))?;
            Ok(values.chunks_exact(OUTPUT_COUNT).take(image_count).map(<[f32]>::to_vec).collect())
        })
    }
}

/// Returns the line of an error of CubeCL that names its cause. The other lines name the kernels that were
/// skipped because of it, and backtraces.
fn root_cause(error: &str) -> &str {
    let cause = error.rsplit_once("Caused by:\n").map_or(error, |(_, cause)| cause);
    cause.trim_start().lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::spec, pixels::CropShape};

    #[test]
    fn error_of_the_gpu_is_reduced_to_its_cause() {
        let chain = "The bytes were never written (failure #1, still claiming 2 buffer(s))\n  skipped `a`\n  \
                     skipped `b`\nCaused by:\n  can't allocate buffer of size: 9\n   0: frame\nAsked at:\n   0: frame";
        assert_eq!(root_cause(chain), "can't allocate buffer of size: 9");
        assert_eq!(root_cause("out of memory\n   0: frame"), "out of memory");
        assert_eq!(root_cause(""), "");
    }

    #[test]
    fn every_cpu_backend_gives_the_outputs_of_the_model() {
        // The GPU backends are tested in `tests/gpu.rs`, on a machine with a GPU.
        for backend in Backend::cpu_backends() {
            let outputs = Network::load(backend).logits(&[Crop::black(GEOMETRY.crop)]).unwrap();
            assert_eq!(outputs[0].len(), OUTPUT_COUNT, "{backend}");
            assert!(spec::LABELS.iter().all(|(_, label)| !label.is_empty()));
        }
    }

    #[test]
    fn padding_of_a_batch_changes_no_logits_and_is_not_returned() {
        let network = Network::load(Backend::default());
        let bytes =
            (0..GEOMETRY.crop.byte_count()).map(|index| u8::try_from(index * 7 % 256).unwrap()).collect();
        let crops = [Crop::new(bytes, GEOMETRY.crop).unwrap(), Crop::black(GEOMETRY.crop)];
        let expected = network.logits(&crops).unwrap();
        for batch_size in [2, 4] {
            let pending = network.submit(&crops, batch_size).unwrap();
            let outputs = block_on(pending).unwrap();
            assert_eq!(outputs.len(), crops.len());
            for (a, b) in outputs.concat().iter().zip(expected.concat()) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
        }
        assert!(matches!(network.submit(&crops, 1).err(), Some(NetworkError::Input { .. })));
        assert!(matches!(network.submit(&[], 1).err(), Some(NetworkError::Input { .. })));
    }

    #[test]
    fn input_of_the_wrong_size_is_refused() {
        let network = Network::load(Backend::default());
        let small = Crop::black(CropShape { width: GEOMETRY.crop.width - 1, ..GEOMETRY.crop });
        assert!(matches!(network.logits(&[small]), Err(NetworkError::Input { .. })));
        assert!(matches!(network.logits_of_tensor(&[0.0; 10], 1), Err(NetworkError::Input { .. })));
        assert!(matches!(network.logits(&[]), Err(NetworkError::Input { .. })));
    }
}
