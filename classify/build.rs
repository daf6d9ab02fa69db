//! Generates the network that this crate is compiled with; `model-import` knows how.

fn main() {
    model_import::build_script::run();
}
