//! model-import from outside: model folders, the choice of a model, fetching.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model_choice;
mod common;
mod fetching;
mod model_folder;
