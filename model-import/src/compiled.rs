//! Runs the generated code of a model, in a program that cargo compiles.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Compiles the program `network-outputs` with a model, and runs it.
#[derive(Debug)]
pub struct CompiledNetwork {
    /// The program cargo.
    pub cargo: PathBuf,
    /// Folder of the repository, which has the model folders in `models/`.
    pub workspace: PathBuf,
    /// Profile of cargo. `release` is the one that the service is compiled with.
    pub profile: String,
}

impl CompiledNetwork {
    /// Computes the outputs of the model `model_name` for a batch of images `[batch, channels, height, width]`.
    ///
    /// The progress of cargo goes to standard error.
    ///
    /// # Errors
    /// Returns a message if the program cannot be compiled or fails.
    pub fn run(&self, model_name: &str, images: &[f32], batch_size: usize) -> Result<Vec<f32>, String> {
        let describe = |error| format!("cannot run {}: {error}", self.cargo.display());
        let mut child = Command::new(&self.cargo)
            .args([
                "run",
                "--profile",
                &self.profile,
                "--features",
                "check",
                "--bin",
                "network-outputs",
                "--",
            ])
            .arg(batch_size.to_string())
            .current_dir(&self.workspace)
            .env("CLASSIFY_MODEL", model_name)
            .env_remove("CLASSIFY_MODEL_ONNX")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(describe)?;
        let input: Vec<u8> = images.iter().flat_map(|value| value.to_le_bytes()).collect();
        // If the program fails before it has read the images, its exit status tells more than this error.
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&input));
        let output = child.wait_with_output().map_err(describe)?;
        if !output.status.success() {
            return Err(format!("the program with a batch of {batch_size} failed: {}", output.status));
        }
        written.map_err(describe)?;
        Ok(output.stdout.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect())
    }
}
