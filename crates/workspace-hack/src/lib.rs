//! This crate has no code. Its dependencies select features.
//!
//! Cargo compiles a crate again for each different set of features. The build script of classify converts models
//! with burn-onnx, so it depends on burn, as the services do. Both therefore depend on this crate, which selects the
//! same features for the dependencies of burn. Without it, Cargo would compile burn and 80 other crates twice.
