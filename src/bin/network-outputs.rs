//! Runs the compiled-in network on images from standard input, and writes its outputs to standard output.
//!
//! `model-import check --compiled` compares these outputs with those of the original network. The argument is the
//! batch size. Both streams consist of 32-bit floats in little-endian order: the images, of the shape
//! `[count, channels, height, width]` and normalised as the network expects, and the outputs, of the shape
//! `[count, outputs]`.

use std::{
    io::{Read as _, Write as _},
    num::NonZero,
};

use anyhow::Context as _;
use classify::{
    backend::Backend,
    model::{INPUT_SHAPE, Network},
};

fn main() -> anyhow::Result<()> {
    let batch_size = std::env::args().nth(1).context("the argument is missing: the batch size")?;
    let batch_size: NonZero<usize> =
        batch_size.parse().with_context(|| format!("{batch_size:?} is not a batch size"))?;
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let images: Vec<f32> = bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect();
    let image_length: usize = INPUT_SHAPE.iter().product();
    let network = Network::load(Backend::default());
    let mut stdout = std::io::stdout().lock();
    for batch in images.chunks(batch_size.get() * image_length) {
        for value in network.logits_of_tensor(batch, batch.len() / image_length)?.concat() {
            stdout.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(stdout.flush()?)
}
