//! Tests model-import through its public functions.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod add;
mod commands;
mod common;
mod fetching;
mod heads;
mod model_choice;
mod model_folder;
