//! The orientation in XMP.

/// Maximum number of bytes of XMP that are searched. The packets of cameras and editors have fewer, or state the
/// orientation near their start.
pub(crate) const MAX_XMP_BYTES: usize = 64 << 10;

/// Reads the orientation, which is a number from 1 to 8, from an XMP packet.
///
/// The first digit after the property's name counts, in an attribute or in an element. Pillow searches in the same
/// way, and does not parse the XML either.
pub(crate) fn read_orientation(packet: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    let packet = packet.get(..MAX_XMP_BYTES).unwrap_or(packet);
    let digit =
        packet.windows(NAME.len() + b"=\"6\"".len()).find_map(|window| match *window.strip_prefix(NAME)? {
            [b'=', b'"', digit @ b'0'..=b'9', b'"'] | [b'>', digit @ b'0'..=b'9', b'<', _] => {
                Some(digit - b'0')
            }
            _ => None,
        });
    digit.filter(|orientation| (1..=8).contains(orientation))
}
