//! A file, its answer, and what several of the writers need.

/// A file that was made to do harm.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) answer: Answer,
}

/// What comes of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// A picture.
    Taken,
    /// Refused before anything is decoded, with this kind of problem.
    ByHeader(&'static str),
    /// Refused by the decoder.
    ByDecoder(&'static str),
}

pub(crate) fn file(name: &'static str, answer: Answer, bytes: Vec<u8>) -> File {
    File { name, bytes, answer }
}

/// Noise, the same in every run: Knuth's multiplier, the highest bits.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 5;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

/// A length as the formats write it.
pub(crate) fn length32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap()
}

pub(crate) fn length16(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap()
}
