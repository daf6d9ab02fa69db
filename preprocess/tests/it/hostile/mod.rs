//! Tests with hostile files. Each file must have its expected outcome, and must need no more memory than its
//! processing plans state.
//!
//! A processing plan selects a decoder for a file and states the memory that processing the file needs. If
//! the decoder refuses the file, the next plan selects the next decoder.
//!
//! The modules generate decompression bombs, files with invalid sizes, and files that are truncated,
//! concatenated or mislabelled. A separate process ([`rig`]) processes each file and measures the needed
//! memory: the peak of the resident memory, minus the resident memory after the file was loaded.

#[cfg(feature = "avif")]
mod avif;
mod corpus;
mod files;
mod gif;
#[cfg(feature = "heic")]
mod heic;
pub(crate) mod jpeg;
mod other;
mod png;
pub(crate) mod rig;
mod tiff;
mod webp;

use std::sync::LazyLock;

use preprocess::Settings;

use crate::{
    hostile::{
        files::{Expected, HostileFile},
        rig::Measurement,
    },
    support::{TestApp, read_problem},
};

/// Maximum memory in bytes that processing a file may need, even if a plan states more.
const MAX_BYTES: u64 = 256_000_000;

/// Memory that no plan includes: pages that the allocator keeps, and pages of the program that are used for
/// the first time.
const SLACK_BYTES: u64 = 4 << 20;

/// Returns true if a file needed more memory than its plans state or than [`MAX_BYTES`].
pub(crate) fn exceeds_memory(measured: &Measurement) -> bool {
    measured.peak_bytes > (measured.planned_bytes + SLACK_BYTES).min(MAX_BYTES)
}

/// Every hostile file, generated once for all tests.
static FILES: LazyLock<Vec<HostileFile>> = LazyLock::new(|| {
    [
        jpeg::files(),
        png::files(),
        webp::files(),
        gif::files(),
        tiff::files(),
        #[cfg(feature = "heic")]
        heic::files(),
        #[cfg(feature = "avif")]
        avif::files(),
        other::files(),
    ]
    .concat()
});

#[test]
fn hostile_file_has_the_expected_outcome_within_the_planned_memory() {
    let mut failures = Vec::new();
    for &HostileFile { name, ref bytes, expected } in FILES.iter() {
        let measured = rig::measure(bytes);
        println!(
            "{name}: {} bytes, {}, {} KiB of {} KiB planned, {} ms",
            bytes.len(),
            measured.outcome,
            measured.peak_bytes >> 10,
            measured.planned_bytes >> 10,
            measured.cpu_milliseconds
        );
        let (outcome, decoded) = match expected {
            Expected::Processed => (rig::PROCESSED, true),
            Expected::RefusedBeforeDecoding(kind) => (kind, false),
            Expected::RefusedByDecoder(kind) => (kind, true),
        };
        if (&*measured.outcome, measured.decoded) != (outcome, decoded) {
            failures.push(format!("{name}: expected {expected:?}, found {measured:?}"));
        }
        if exceeds_memory(&measured) {
            failures.push(format!("{name}: too much memory: {measured:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn photo_of_12_megapixels_needs_at_most_10_megabytes() {
    let measured = rig::measure(&jpeg::photo(4000, 3000));
    println!(
        "12 megapixels: {} KiB of {} KiB planned, {} ms",
        measured.peak_bytes >> 10,
        measured.planned_bytes >> 10,
        measured.cpu_milliseconds
    );
    assert_eq!(measured.outcome, rig::PROCESSED);
    assert!(measured.peak_bytes <= 10_000_000, "{measured:?}");
}

#[tokio::test]
async fn post_of_a_hostile_file_has_the_expected_status_and_kind() {
    let app = TestApp::start(Settings::default()).await;
    for &HostileFile { name, ref bytes, expected } in FILES.iter() {
        let response = app.post("image/jpeg", bytes.clone()).await;
        let kind = match expected {
            Expected::Processed => {
                assert_eq!(response.status(), 200, "{name}");
                continue;
            }
            Expected::RefusedBeforeDecoding(kind) | Expected::RefusedByDecoder(kind) => kind,
        };
        let expected_status = match (name, kind) {
            (_, "unsupported_format") => 415,
            // The coded parts of these files have too many pixels together.
            ("heic-15-tiles-of-16-megapixels" | "avif-100-megapixels-in-2-kilobytes", _) => 413,
            _ => 422,
        };
        assert_eq!(response.status(), expected_status, "{name}");
        let (_, body) = read_problem(response).await;
        assert_eq!(body["kind"], kind, "{name}");
        assert_eq!(body["type"], format!("urn:problem:{kind}"), "{name}");
    }
}
