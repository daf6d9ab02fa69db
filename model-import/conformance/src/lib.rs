//! Contains networks that model-import converted from graphs in the styles of three exporters.
//!
//! The folder `graphs/` builds the original graphs, and `build.rs` converts them. The tests compare the
//! outputs of the converted networks with the outputs of tract, an independent runtime, for the original
//! graphs. The folder `exports/` has networks that other tools exported, with the outputs of onnxruntime.

/// Includes the code of one converted network.
macro_rules! converted {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[expect(warnings, clippy::all, clippy::pedantic, reason = "burn-onnx generates this code")]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

converted! {
    /// The network in the style of the opset 7 file of the ONNX Model Zoo.
    zoo
}
converted! {
    /// The network in the style of a PyTorch export.
    torch
}
converted! {
    /// The network in the style of a tf2onnx export.
    tf2onnx
}
converted! {
    /// The vision transformer that torch's TorchScript exporter wrote with a batch size of 1.
    torch_legacy_vit
}
converted! {
    /// A network with average pooling that rounds up, as torch's default exporter wrote it.
    torch_dynamo_average_pool_ceil
}

/// Returns the path of the original graph in the style `name`.
#[must_use]
pub fn original_path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("OUT_DIR")).join(format!("{name}-original.onnx"))
}

/// Returns the path of the simplified graph in the style `name`, from which the network was generated.
#[must_use]
pub fn simplified_path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("OUT_DIR")).join(format!("{name}.onnx"))
}
