//! Tests of model-import through its public functions: model folders, the choice of a model, fetching.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod common;
mod fetching;
mod model_choice;
mod model_folder;
