//! Generates the network's code, weights and constants from the configured model.

fn main() {
    model_import::build_script::run();
}
