//! What a JPEG says of how it was made.

/// How a JPEG was made: two that are the same in this were made with the same quality and sampling.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Making {
    /// Horizontal (high four bits) and vertical sampling of each component.
    sampling: Vec<u8>,
    /// The quantisation tables.
    tables: Vec<u8>,
}

impl Making {
    pub(crate) fn of(jpeg: &[u8]) -> Self {
        let (mut sampling, mut tables) = (Vec::new(), Vec::new());
        let mut at = 2;
        // To the first scan.
        while jpeg[at + 1] != 0xDA {
            let &[0xFF, marker, high, low] = &jpeg[at..at + 4] else { panic!("no segment at {at}") };
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            let segment = &jpeg[at + 4..end];
            match marker {
                0xDB => tables.extend_from_slice(segment),
                // Precision, height, width and the number of components; then three bytes for each.
                0xC0..=0xC2 => {
                    sampling = segment[6..].chunks_exact(3).map(|component| component[1]).collect()
                }
                _ => {}
            }
            at = end;
        }
        Self { sampling, tables }
    }
}
