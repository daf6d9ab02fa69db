//! Tracks which coefficients of an image the scans of a JPEG cover.

/// The coefficients that are complete after the scans so far, according to the scan headers.
pub(super) struct ScanCoverage {
    /// Identifiers of the components in the frame header.
    component_ids: Vec<u8>,
    is_progressive: bool,
    /// One entry per possible component identifier. In an entry, the bit of each complete coefficient is set.
    complete_coefficients: [u64; 256],
}

impl Default for ScanCoverage {
    fn default() -> Self {
        Self { component_ids: Vec::new(), is_progressive: false, complete_coefficients: [0; 256] }
    }
}

impl ScanCoverage {
    /// Reads the components from `frame_header`, which the caller has validated.
    pub(super) fn set_frame(&mut self, is_progressive: bool, frame_header: &[u8]) {
        let [.., component_count] = frame_header.first_chunk::<6>().copied().unwrap_or_default();
        let components = frame_header.get(6..).unwrap_or_default().as_chunks::<3>().0;
        self.component_ids = components.iter().take(component_count.into()).map(|&[id, ..]| id).collect();
        self.is_progressive = is_progressive;
    }

    /// Adds the coefficients that a scan completes. A scan with a damaged header adds none.
    pub(super) fn add_scan(&mut self, scan_header: &[u8]) {
        let (component_count, rest) = scan_header.split_first().unwrap_or((&0, &[]));
        let (components, rest) = rest.split_at_checked(2 * usize::from(*component_count)).unwrap_or_default();
        let coefficients = match *rest {
            // A baseline scan has all coefficients of its components.
            _ if !self.is_progressive => u64::MAX,
            // The low four bits of `approximation` are the number of bits that later scans add to each
            // coefficient. If this number is 0, the scan completes the coefficients from `first` to `last`.
            [first @ ..64, last @ ..64, approximation, ..] if approximation & 15 == 0 => {
                (u64::MAX << first) & (u64::MAX >> (63 - last))
            }
            _ => 0,
        };
        for &[id, _] in components.as_chunks().0 {
            self.complete_coefficients[usize::from(id)] |= coefficients;
        }
    }

    /// Returns true if every coefficient of every component is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.component_ids.iter().all(|&id| self.complete_coefficients[usize::from(id)] == u64::MAX)
    }
}
