//! The command `model-import check`.

use std::path::Path;

use crate::check;
use crate::locate;
use crate::model::Model;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the model, which is the name of its folder.
    model: String,
    /// Also compile the generated code, and compare its outputs with those of the original. This needs the feature
    /// `compare`.
    #[arg(long)]
    compiled: bool,
    /// Profile of cargo for --compiled. The default is that of the service.
    #[arg(long, value_name = "NAME", default_value = "release", requires = "compiled")]
    profile: String,
}

/// Runs the checks of a build except for the generation of code, and compares the graph with the original. With
/// `--compiled`, compiles and compares the generated code as well.
pub(super) fn run(models_folder: &Path, arguments: &Arguments) -> anyhow::Result<String> {
    let spec = locate::read_spec(models_folder, &arguments.model)?;
    let (onnx_path, sha256) = super::find_checked_onnx(models_folder, &spec)?;
    let summary = super::format_summary(&spec, &onnx_path, &sha256);
    let model = Model::read(spec, onnx_path, sha256)?;
    let report = check::check(&model)?;
    let compiled = if arguments.compiled {
        format!("\ncompiled    {}", compare_compiled(models_folder, &model, &arguments.profile)?)
    } else {
        String::new()
    };
    Ok(format!(
        "{summary}\n{}\nkind        {}\nlabels      {}, which fit the outputs\n{report}{compiled}",
        model.graph.report,
        model.output.kind,
        model.labels.len()
    ))
}

#[cfg(feature = "compare")]
fn compare_compiled(models_folder: &Path, model: &Model, profile: &str) -> anyhow::Result<String> {
    let models_folder = std::path::absolute(models_folder)?;
    let build = crate::compiled::CompiledNetwork {
        // Cargo sets this variable for the programs that it runs.
        cargo: std::env::var_os("CARGO").map_or("cargo".into(), Into::into),
        workspace: models_folder.parent().unwrap_or(&models_folder).to_owned(),
        profile: profile.into(),
    };
    Ok(match crate::compare::compare_compiled(model, &build)? {
        Ok(comparison) => comparison.to_string(),
        Err(reason) => format!("NOT compared with the original: {reason}"),
    })
}

#[cfg(not(feature = "compare"))]
fn compare_compiled(_: &Path, model: &Model, _: &str) -> anyhow::Result<String> {
    anyhow::bail!(
        "this program is built without tract; run `cargo run -p model-import --features compare -- check {} --compiled`",
        model.spec.name
    )
}
