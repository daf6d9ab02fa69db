//! Generates Rust code from a simplified graph.
//!
//! burn-onnx generates `network.rs` and `network.bpk`. This module generates `spec.rs`, which contains the
//! model's constants.
//!
//! The weights are compiled into the program ([`LoadStrategy::Embedded`]). The program is then a single file,
//! and its first forward pass takes less time (`model-import/README.md` has the measurements).
//!
//! `register_operators` registers the custom operators. A replacement of one of burn-onnx's own operators
//! would be registered there, too.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use burn_onnx::{LoadStrategy, ModelGen};
use onnx_proto::{Message, ModelProto};

use crate::Error;
use crate::chain_op::ChainOp;
use crate::graph::fuse;
use crate::graph::node_names::explain_node_names;
use crate::model::Model;
use crate::spec::{Channels, Filter, InputSpec, Normalisation, Resize, Size};

/// Writes the burn code, the weights, the graphs and the constants of a model into `output_folder`.
///
/// The files are `spec.rs` and those that [`write_network`] writes with the name `network`.
///
/// # Errors
/// Returns [`Error::Conversion`] if burn-onnx cannot convert the graph, and [`Error::Io`] if the folder
/// cannot be written.
pub fn generate(model: &Model, output_folder: &Path) -> Result<(), Error> {
    write_network(&model.graph.model, &model.onnx_path, output_folder, "network")?;
    write_constants(model, output_folder)
}

/// Writes the burn code and the weights of a simplified graph into `output_folder`.
///
/// Chains of convolutions are fused before the code `<name>.rs` and the weights `<name>.bpk` are generated,
/// so the crate that includes the code must depend on the crate `fused`. The function also writes the graph
/// before fusing to `<name>.onnx` and the graph after fusing to `fused/<name>.onnx`. `onnx_path` is the path
/// of the original file, for error messages.
///
/// # Errors
/// Returns [`Error::Conversion`] if burn-onnx cannot convert the graph, and [`Error::Io`] if the folder
/// cannot be written.
pub fn write_network(
    model: &ModelProto,
    onnx_path: &Path,
    output_folder: &Path,
    name: &str,
) -> Result<(), Error> {
    let conversion_error = |cause: String| Error::Conversion { onnx_path: onnx_path.into(), cause };
    let write_graph = |model: &ModelProto, path: &Path| {
        let bytes = model.write_to_bytes().map_err(|error| conversion_error(error.to_string()))?;
        fs::write(path, bytes).map_err(Error::io("write", path))
    };
    let fused_folder = output_folder.join("fused");
    fs::create_dir_all(&fused_folder).map_err(Error::io("create", &fused_folder))?;
    write_graph(model, &output_folder.join(format!("{name}.onnx")))?;
    // burn-onnx names its output files after its input file.
    let fused_path = fused_folder.join(format!("{name}.onnx"));
    let fused = with_fused_chains(model);
    write_graph(&fused, &fused_path)?;

    let (input, folder) = (fused_path.to_string_lossy(), output_folder.to_string_lossy());
    catch_panic(|| {
        // `ModelGen::new()` would install a logger that writes to standard output, which cargo parses.
        let mut generator = ModelGen::default();
        generator.input(&input).out_dir(&folder).load_strategy(LoadStrategy::Embedded);
        register_operators(&mut generator);
        generator.run_from_cli();
    })
    .map_err(|cause| conversion_error(explain_node_names(&cause, &fused.graph)))
}

/// Returns a copy of the model in which each chain of convolutions is one custom operator.
fn with_fused_chains(model: &ModelProto) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = model.graph.as_mut()
        && let Some(input) = graph.input.first().map(|input| input.name.clone())
        && let Some(mut import) = model.opset_import.first().cloned()
    {
        fuse::fuse(graph, &input);
        // A model must import the operator set of every domain that it uses.
        import.domain = fuse::DOMAIN.into();
        import.version = 1;
        model.opset_import.push(import);
    }
    model
}

/// Registers custom operators with the code generator.
///
/// A custom operator implements `burn_onnx::ext::CustomOp`. A replacement of one of burn-onnx's own operators
/// implements `burn_onnx::ext::OpOverride`.
fn register_operators(generator: &mut ModelGen) {
    generator.register_custom_op(ChainOp);
}

/// Writes `spec.rs`, the constants that a service needs to prepare the input and to name the outputs.
///
/// # Errors
/// Returns [`Error::Io`] if the folder cannot be written.
pub fn write_constants(model: &Model, output_folder: &Path) -> Result<(), Error> {
    let path = output_folder.join("spec.rs");
    fs::write(&path, format_constants(model)).map_err(Error::io("write", &path))
}

fn format_constants(model: &Model) -> String {
    let (spec, output) = (&model.spec, &model.output);
    let report = &model.graph.report;
    let label_lines = model.labels.iter().fold(String::new(), |mut text, label| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    ({:?}, {:?}),", label.wnid, label.name);
        text
    });
    format!(
        "// Generated from model.toml, the labels file and the ONNX graph of the model. Do not edit.

/// Name of the model, which is the name of its folder in `models/`.
pub const NAME: &str = {name:?};
/// SPDX expression of the weights' licence.
pub const LICENSE: &str = {license:?};
/// SHA-256 of the ONNX file that the network was generated from, in hexadecimal.
pub const ONNX_SHA256: &str = {sha256:?};
/// Shape of one image at the network's input: channels, height, width.
pub const INPUT: [usize; 3] = [{channels}, {height}, {width}];
{input_constants}/// Maximum batch size; `None` if the network accepts any.
pub const MAX_BATCH: Option<usize> = {max_batch};
/// Kind of the network's outputs.
pub const OUTPUT_KIND: super::OutputKind = super::OutputKind::{kind:?};
/// Number of outputs per image.
pub const OUTPUT_COUNT: usize = {output_count};
/// True if a sigmoid must be applied to the outputs, because the network has none.
pub const OUTPUT_NEEDS_SIGMOID: bool = {needs_sigmoid};
/// Probability from which a class of a binary or multi-label model counts as present.
pub const THRESHOLD: f32 = {threshold:?};
/// The classes in the order of the outputs: WordNet id (or \"\") and label. A binary model has the negative and
/// then the positive class, or only the positive class. An embedding has no classes.
pub const LABELS: [(&str, &str); {count}] = [
{label_lines}];
",
        name = spec.name,
        license = spec.license,
        sha256 = model.sha256,
        height = report.height,
        width = report.width,
        channels = report.channels,
        input_constants = format_input_constants(&spec.input),
        max_batch = if report.batch_obstacle.is_some() { "Some(1)" } else { "None" },
        kind = output.kind,
        output_count = report.class_count,
        needs_sigmoid = output.needs_sigmoid,
        threshold = output.threshold,
        count = model.labels.len(),
    )
}

/// Returns the constants of the preprocessing. The module that includes them provides the types.
fn format_input_constants(input: &InputSpec) -> String {
    let size = |Size { height, width }: Size| format!("{{ height: {height}, width: {width} }}");
    let resize = match input.resize {
        Resize::ShorterSide(side) => format!("ShorterSide({side})"),
        Resize::Cover(min_size) => format!("Cover {}", size(min_size)),
        Resize::Squash => "Squash".into(),
        Resize::Letterbox(color) => format!("Letterbox({color:?})"),
    };
    let filter = match input.filter {
        Filter::Bilinear => "Bilinear",
        Filter::Bicubic => "Bicubic",
        Filter::Lanczos => "Lanczos",
        Filter::Nearest => "Nearest",
    };
    let order = match input.channels {
        Channels::Rgb => "Rgb",
        Channels::Bgr => "Bgr",
        Channels::Grey => "Grey",
    };
    let normalisation = match &input.normalisation {
        Normalisation::MeanStd { mean, std } => format!("MeanStd {{ mean: {mean:?}, std: {std:?} }}"),
        Normalisation::ScaleOffset { scale, offset } => {
            format!("ScaleOffset {{ scale: {scale:?}, offset: {offset:?} }}")
        }
    };
    format!(
        "/// Resize of an image before the centre crop.
pub const RESIZE: Resize = Resize::{resize};
/// Filter of the resize.
pub const FILTER: Filter = Filter::{filter};
/// Order of the channels at the network's input.
pub const CHANNEL_ORDER: ChannelOrder = ChannelOrder::{order};
/// Formula that turns a byte into a value of the network's input.
pub const NORMALISATION: Normalisation<{count}> = Normalisation::{normalisation};
",
        count = input.channels.count(),
    )
}

thread_local! {
    static PANICS_ARE_SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs the code generator. If the generator panics, returns the panic's message as the error.
///
/// burn-onnx reports every failure by panicking. While burn-onnx runs, a panic of this thread is not printed,
/// because the caller reports the error. Panics of other threads are printed as usual.
fn catch_panic(run: impl FnOnce()) -> Result<(), String> {
    static INSTALL_HOOK: Once = Once::new();
    INSTALL_HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !PANICS_ARE_SILENT.get() {
                previous(info);
            }
        }));
    });
    PANICS_ARE_SILENT.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    PANICS_ARE_SILENT.set(false);
    outcome.map_err(|payload| panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into()))
        .unwrap_or_else(|| "the code generator panicked without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_message_is_returned_as_the_error() {
        let message = catch_panic(|| panic!("node {} is odd", 7)).unwrap_err();
        assert_eq!(message, "node 7 is odd");
        assert!(catch_panic(|| ()).is_ok());
    }
}
