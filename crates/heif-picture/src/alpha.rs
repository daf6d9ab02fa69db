//! The alpha channels of items, which are auxiliary items with a certain name.

use std::collections::BTreeMap;

use crate::{boxes::Reader, container::Container, error::Error};

/// Returns the alpha channel of each item that has one. An item's first alpha channel counts.
///
/// Looks at every auxiliary item once. A file can relate thousands of them to each of a thousand tiles.
pub(crate) fn alpha_channels(container: &Container<'_>) -> Result<BTreeMap<u32, u32>, Error> {
    let mut known = BTreeMap::new();
    let mut channels = BTreeMap::new();
    for &(item, auxiliary) in &container.auxiliaries {
        let is_alpha = match known.get(&auxiliary) {
            Some(&is_alpha) => is_alpha,
            None => is_alpha(container, auxiliary)?,
        };
        known.insert(auxiliary, is_alpha);
        if is_alpha {
            channels.entry(item).or_insert(auxiliary);
        }
    }
    Ok(channels)
}

/// Returns true if an auxiliary item is an alpha channel, and not a depth map, for example.
fn is_alpha(container: &Container<'_>, id: u32) -> Result<bool, Error> {
    const NAMES: [&[u8]; 2] = [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"];
    for property in container.properties(container.item(id)?) {
        let property = property?;
        if property.kind == b"auxC" {
            let mut reader = Reader(property.content);
            reader.version_and_flags()?;
            // The name ends with a zero byte. Other data can follow.
            let rest = NAMES.iter().find_map(|name| reader.0.strip_prefix(*name));
            return Ok(rest.is_some_and(|rest| matches!(rest, [] | [0, ..])));
        }
    }
    Ok(false)
}
