//! The command `model-import`; see [`model_import::cli`].

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    model_import::cli::Cli::parse().run()
}
