//! Tests of the public interface of preprocess: of `image::process`, and of the service over HTTP.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers fail by panicking")]

mod any_bytes;
#[cfg(feature = "avif")]
mod avif;
mod colours;
mod costs;
mod echo;
#[path = "../../../tests/common/format_examples.rs"]
mod format_examples;
mod format_table;
mod formats;
mod hand_made;
#[cfg(feature = "heic")]
mod heic;
#[cfg(feature = "heic")]
mod heif_files;
#[cfg(target_os = "linux")]
mod hostile;
mod limits;
mod models;
mod orientation;
#[cfg(target_os = "linux")]
mod overload;
mod predictions;
#[cfg(target_os = "linux")]
mod public_files;
mod refusals;
mod support;
mod test_image;
mod tiff_file;
mod tiff_variants;
mod tolerated_damage;
mod uploads;
mod waiting;
