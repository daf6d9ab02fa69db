//! Starts the command `model-import`, which [`model_import::cli`] implements.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    model_import::cli::Cli::parse().run()
}
