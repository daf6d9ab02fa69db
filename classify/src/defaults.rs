//! Reads the defaults of settings from their flags, so that each default is stated once.

use clap::{Args, Command, builder::Resettable};

/// Returns the settings that an empty command line gives. Environment variables are ignored.
#[expect(clippy::expect_used, reason = "wrong defaults are a mistake in the code, and tests parse them")]
pub(crate) fn parsed_defaults<T: Args>() -> T {
    let command = T::augment_args(Command::new("defaults")).mut_args(|arg| arg.env(Resettable::Reset));
    let matches = command.try_get_matches_from(["defaults"]).expect("no setting is required");
    T::from_arg_matches(&matches).expect("every default is valid")
}
