//! Files that were made to do harm: each has its answer, and takes no more memory than was promised.
//!
//! Made here from what the formats allow: bombs that are small until they are decoded, sizes that are no
//! sizes, files that were cut, glued together or called something else. What one costs is measured in a
//! process of its own ([`rig`]), as the most resident memory above what the process has with the file
//! alone.

mod corpus;
mod files;
mod gif;
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
        files::{Answer, File},
        rig::Cost,
    },
    support::{TestApp, problem},
};

/// Above this nothing may go.
const MOST_BYTES: u64 = 256_000_000;

/// What an allocator keeps back, and pages of the program that are touched for the first time.
const SLACK_BYTES: u64 = 4 << 20;

/// Whether a file took more memory than its plans promised, or than anything may.
pub(crate) fn exceeds(cost: &Cost) -> bool {
    cost.peak > (cost.promised + SLACK_BYTES).min(MOST_BYTES)
}

/// All of them, made once for all tests.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    [jpeg::files(), png::files(), webp::files(), gif::files(), tiff::files(), other::files()].concat()
});

#[test]
fn each_has_its_answer_and_takes_what_was_promised() {
    let mut wrong = Vec::new();
    for &File { name, ref bytes, answer } in FILES.iter() {
        let cost = rig::cost(bytes);
        println!(
            "{name}: {} bytes, {}, {} of {} KiB, {} ms",
            bytes.len(),
            cost.outcome,
            cost.peak >> 10,
            cost.promised >> 10,
            cost.milliseconds
        );
        let (outcome, decoded) = match answer {
            Answer::Taken => ("taken", true),
            Answer::ByHeader(kind) => (kind, false),
            Answer::ByDecoder(kind) => (kind, true),
        };
        if (&*cost.outcome, cost.decoded) != (outcome, decoded) {
            wrong.push(format!("{name}: expected {answer:?}: {cost:?}"));
        }
        if exceeds(&cost) {
            wrong.push(format!("{name}: too much memory: {cost:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_photo_of_12_megapixels_takes_less_than_10_mb() {
    let cost = rig::cost(&jpeg::photo(4000, 3000));
    println!("12 megapixels: {} of {} KiB, {} ms", cost.peak >> 10, cost.promised >> 10, cost.milliseconds);
    assert_eq!(cost.outcome, "taken");
    assert!(cost.peak <= 10_000_000, "{cost:?}");
}

#[tokio::test]
async fn each_is_answered_as_documented() {
    let app = TestApp::start(Settings::default()).await;
    for &File { name, ref bytes, answer } in FILES.iter() {
        let response = app.post("image/jpeg", bytes.clone()).await;
        let kind = match answer {
            Answer::Taken => {
                assert_eq!(response.status(), 200, "{name}");
                continue;
            }
            Answer::ByHeader(kind) | Answer::ByDecoder(kind) => kind,
        };
        let (status, body) = problem(response).await;
        let expected = if kind == "unsupported_format" { 415 } else { 422 };
        assert_eq!((status, body["kind"].as_str().unwrap()), (expected, kind), "{name}");
        assert_eq!(body["type"], format!("urn:problem:{kind}"), "{name}");
    }
}
