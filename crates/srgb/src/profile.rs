//! Prepares an ICC profile for moxcms.

use resize::Channels;

/// Length in bytes of the header of a profile.
const HEADER_BYTES: usize = 128;

/// Length in bytes of the number of tags, which follows the header.
const TAG_COUNT_BYTES: usize = 4;

/// Length in bytes of an entry in the table of tags: the name of the tag, and the offset and the length of its data.
const ENTRY_BYTES: usize = 12;

/// Offset of the major version in the header.
const VERSION_OFFSET: usize = 8;

/// The tables from colours to the connection space, the preferred one first. Their rendering intents are relative
/// colorimetric, perceptual and saturation.
const TABLES: [&[u8; 4]; 3] = [COLORIMETRIC_TABLE, b"A2B0", b"A2B2"];

/// Name of the table for the intent relative colorimetric.
const COLORIMETRIC_TABLE: &[u8; 4] = b"A2B1";

/// The other tags that take part in a conversion to sRGB: the primaries and curves of an RGB profile, and the curve
/// of a grey profile.
const OTHER_TAGS: [&[u8; 4]; 10] =
    [b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC", b"wtpt", b"chad", b"cicp"];

/// Returns the profile with only those tags that a conversion to sRGB reads, each of them once.
///
/// moxcms copies the data of every tag that it knows, so that a profile whose thousands of tags share the same data
/// would take a minute. moxcms also refuses a profile for damage in tags that do not matter here.
///
/// If there are tables, the best one becomes the table for the intent relative colorimetric. Returns `None` if the
/// list of tags is cut off, or if the best table is not one from `channels` to three channels.
pub(crate) fn reduce(profile: &[u8], channels: Channels) -> Option<Vec<u8>> {
    let mut reduced = profile.to_vec();
    let (header, rest) = reduced.split_at_mut_checked(HEADER_BYTES)?;
    let (tag_count, tags) = rest.split_first_chunk_mut::<TAG_COUNT_BYTES>()?;
    let tags_bytes = usize::try_from(u32::from_be_bytes(*tag_count)).ok()?.checked_mul(ENTRY_BYTES)?;
    let tags = tags.get_mut(..tags_bytes)?.as_chunks_mut::<ENTRY_BYTES>().0;
    let best_table = TABLES.into_iter().find(|&&name| tags.iter().any(|tag| tag.starts_with(&name)));

    let mut kept: Vec<[u8; 4]> = Vec::new();
    for tag in tags {
        let Some(name) = tag.first_chunk_mut() else { continue };
        let is_best_table = Some(&*name) == best_table;
        let is_needed = (is_best_table || OTHER_TAGS.contains(&&*name)) && !kept.contains(name);
        if !is_needed {
            // moxcms ignores tags with unknown names.
            *name = [0; 4];
            continue;
        }
        kept.push(*name);
        if !is_best_table {
            continue;
        }
        *name = *COLORIMETRIC_TABLE;
        let &mut [_, _, _, _, ref offset @ .., _, _, _, _] = tag;
        let offset = usize::try_from(u32::from_be_bytes(*offset)).ok()?;
        // The type of the table, four reserved bytes, and the numbers of channels.
        let table = profile.get(offset..)?;
        let (kind, channel_counts) = (table.get(..4)?, table.get(8..10)?);
        if channel_counts != [channels.count(), 3] {
            return None;
        }
        // The type `mft2` encodes Lab as version 2 of the standard does, in profiles of all versions. The other types
        // encode Lab as version 4. moxcms decides by the version of the profile.
        *header.get_mut(VERSION_OFFSET)? = if kind == b"mft2" { 2 } else { 4 };
    }
    Some(reduced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_needed_tag_is_kept_once_and_every_other_tag_loses_its_name() {
        const TABLE_OFFSET: u32 = 300;
        let names = [b"A2B0", b"A2B0", b"desc", b"wtpt", b"A2B2", b"wtpt"];
        let mut profile = vec![0; 128];
        profile.extend(6_u32.to_be_bytes());
        for name in names {
            profile.extend(name);
            profile.extend([TABLE_OFFSET, 100].map(u32::to_be_bytes).as_flattened());
        }
        profile.resize(300, 0);
        profile.extend(b"mft1\0\0\0\0\x04\x03");

        let reduced = reduce(&profile, Channels::Cmyk).unwrap();
        let kept: Vec<&[u8]> = reduced[132..].chunks(12).take(6).map(|tag| &tag[..4]).collect();
        let unnamed = [0; 4].as_slice();
        assert_eq!(kept, [b"A2B1", unnamed, unnamed, b"wtpt", unnamed, unnamed]);
    }
}
