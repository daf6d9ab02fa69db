//! The type of a hostile file with its expected outcome, and helpers to generate hostile files.

/// A hostile file and its expected outcome.
#[derive(Clone)]
pub(crate) struct HostileFile {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

/// Expected outcome of processing a hostile file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// The file gives an image.
    Processed,
    /// The file is refused before it is decoded. The string is the kind of the problem, such as
    /// `side_too_long`.
    RefusedBeforeDecoding(&'static str),
    /// The file is refused by the decoders. The string is the kind of the problem.
    RefusedByDecoder(&'static str),
}

pub(crate) fn hostile_file(name: &'static str, expected: Expected, bytes: Vec<u8>) -> HostileFile {
    HostileFile { name, bytes, expected }
}

/// Returns `length` bytes of noise. The noise is the same in every run.
///
/// Each byte is the highest eight bits of the next state of Knuth's linear congruential generator.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 5;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// Converts a length to the 32 bits that the formats use.
pub(crate) fn length32(length: usize) -> u32 {
    u32::try_from(length).unwrap()
}

/// Converts a length to the 16 bits that JPEG uses.
pub(crate) fn length16(length: usize) -> u16 {
    u16::try_from(length).unwrap()
}
