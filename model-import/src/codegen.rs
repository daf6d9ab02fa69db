//! From a cleaned graph to Rust: `network.rs` and `network.bpk` by burn-onnx, `spec.rs` by hand.
//!
//! Weights are compiled into the program ([`LoadStrategy::Embedded`]): one file to ship, and the
//! shorter start. Measured on burn-flex, two x86-64 cores that other builds kept busy, three runs of 41,
//! in ms, the file in the system's cache. The first forward pass counts, because parameters are read at
//! their first use; burn-store 0.22 reads a `.bpk` piece by piece and has no mapping of it.
//!
//! | | embedded | `.bpk` file beside it |
//! |---|---|---|
//! | MobileNetV2, load: median (least) | 1.6–2.2 (1.4) | 1.5–2.4 (1.4) |
//! | MobileNetV2, load and forward | 52–84 (40) | 82–95 (50) |
//! | EfficientNet-Lite0, load | 1.5–2.2 (1.3) | 2.0–2.4 (1.4) |
//! | EfficientNet-Lite0, load and forward | 78–95 (50) | 108–133 (60) |
//!
//! Operators that burn-onnx does not know, or that are to be generated otherwise than it does, are
//! registered in `hooks`.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use burn_onnx::{LoadStrategy, ModelGen};
use onnx_ir::{Message, ModelProto};

use crate::Error;
use crate::chain_op::ChainOp;
use crate::graph::{CHANNELS, fuse};
use crate::model::Model;
use crate::spec::OutputKind;

/// Writes the burn code and the weights of a cleaned graph: `<name>.rs` and `<name>.bpk`, with its chains
/// of convolutions fused, so that the crate that includes the code needs `fused`; and the graph itself:
/// `<name>.onnx`, and `fused/<name>.onnx` with the chains. `onnx` is the original file, for error texts.
///
/// # Errors
/// The graph does not convert, or the folder cannot be written.
pub fn network(model: &ModelProto, onnx: &Path, out: &Path, name: &str) -> Result<(), Error> {
    let convert = |cause: String| Error::Convert { onnx: onnx.into(), cause };
    let write = |model: &ModelProto, file: &Path| {
        let bytes = model.write_to_bytes().map_err(|error| convert(error.to_string()))?;
        fs::write(file, bytes).map_err(Error::io("write", file))
    };
    let fused_folder = out.join("fused");
    fs::create_dir_all(&fused_folder).map_err(Error::io("create", &fused_folder))?;
    write(model, &out.join(format!("{name}.onnx")))?;
    // burn-onnx names what it writes after the file it reads.
    let fused = fused_folder.join(format!("{name}.onnx"));
    write(&with_chains(model), &fused)?;

    let (input, folder) = (fused.to_string_lossy(), out.to_string_lossy());
    without_panic(|| {
        // Not `ModelGen::new()`: that installs a logger which writes to standard output.
        let mut generator = ModelGen::default();
        generator.input(&input).out_dir(&folder).load_strategy(LoadStrategy::Embedded);
        hooks(&mut generator);
        generator.run_from_cli();
    })
    .map_err(convert)
}

/// The model with its chains of convolutions as one operator each.
fn with_chains(model: &ModelProto) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = model.graph.as_mut()
        && let Some(input) = graph.input.first().map(|input| input.name.clone())
        && let Some(mut import) = model.opset_import.first().cloned()
    {
        fuse::fuse(graph, &input);
        import.domain = fuse::DOMAIN.into();
        import.version = 1;
        model.opset_import.push(import);
    }
    model
}

/// Where custom operators and overrides of built-in ones are registered with the generator
/// (`burn_onnx::ext::{CustomOp, OpOverride}`).
fn hooks(generator: &mut ModelGen) {
    generator.register_custom_op(ChainOp);
}

/// Writes `spec.rs`: the constants that a service needs to feed the network and to name its outputs.
///
/// # Errors
/// The folder cannot be written.
pub fn spec(model: &Model, out: &Path) -> Result<(), Error> {
    let file = out.join("spec.rs");
    fs::write(&file, spec_source(model)).map_err(Error::io("write", &file))
}

fn spec_source(model: &Model) -> String {
    let spec = &model.spec;
    let report = &model.network.report;
    let labels = model.labels.iter().fold(String::new(), |mut text, label| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    ({:?}, {:?}),", label.wnid, label.name);
        text
    });
    format!(
        "// Generated from model.toml, the labels file and the ONNX graph of the model. Do not edit.

/// Name of the model: its folder in `models/`.
pub const NAME: &str = {name:?};
/// SPDX expression of the weights' licence.
pub const LICENSE: &str = {license:?};
/// SHA-256 of the ONNX file the network was made from, in hexadecimal.
pub const ONNX_SHA256: &str = {sha256:?};
/// Shape of one image at the network's input: channels (RGB), height, width.
pub const INPUT: [usize; 3] = [{CHANNELS}, {height}, {width}];
/// Shorter side, in pixels, that an image is resized to before the centre crop.
pub const RESIZE: u32 = {resize};
/// Mean of each channel, of RGB / 255.
pub const MEAN: [f32; 3] = {mean:?};
/// Standard deviation of each channel, of RGB / 255.
pub const STD: [f32; 3] = {std:?};
/// Whether the network's outputs are logits (a softmax is still to come) and not probabilities.
pub const OUTPUT_IS_LOGITS: bool = {logits};
/// The classes in the order of the outputs: WordNet id (or \"\") and label.
pub const LABELS: [(&str, &str); {count}] = [
{labels}];
",
        name = spec.name,
        license = spec.license,
        sha256 = model.sha256,
        height = report.height,
        width = report.width,
        resize = spec.input.resize,
        mean = spec.input.mean,
        std = spec.input.std,
        logits = spec.output == OutputKind::Logits,
        count = model.labels.len(),
    )
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs the code generator, which panics where it cannot go on, and gives the panic's text as an
/// error. Panics of this thread print nothing meanwhile; those of others are reported as ever.
fn without_panic(run: impl FnOnce()) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    outcome.map_err(|payload| panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into()))
        .unwrap_or_else(|| "the code generator gave no reason".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_text() {
        let text = without_panic(|| panic!("node {} is odd", 7)).unwrap_err();
        assert_eq!(text, "node 7 is odd");
        assert!(without_panic(|| ()).is_ok());
    }
}
