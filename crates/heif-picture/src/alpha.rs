//! The alpha channels of items, which are auxiliary items with a certain name.

use std::collections::BTreeMap;

use crate::{boxes::Reader, container::Container};

/// Returns the alpha channel of each item that has one. An item's first alpha channel counts.
///
/// Looks at every auxiliary item once. A file can relate thousands of them to each of a thousand tiles.
pub(crate) fn alpha_channels(container: &Container<'_>) -> BTreeMap<u32, u32> {
    let mut known = BTreeMap::new();
    let mut channels = BTreeMap::new();
    for &(item, auxiliary) in &container.auxiliaries {
        if *known.entry(auxiliary).or_insert_with(|| is_alpha(container, auxiliary)) {
            channels.entry(item).or_insert(auxiliary);
        }
    }
    channels
}

/// Returns true if an auxiliary item is an alpha channel, and not a depth map, for example.
///
/// An item that is missing, encrypted or damaged is none, because a depth map or a gain map in this state must not keep
/// the picture from being shown.
fn is_alpha(container: &Container<'_>, id: u32) -> bool {
    const NAMES: [&[u8]; 2] = [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"];
    let Ok(item) = container.item(id) else { return false };
    let mut properties = container.properties(item).filter_map(Result::ok);
    let Some(property) = properties.find(|property| property.kind == b"auxC") else { return false };
    let mut reader = Reader(property.content);
    if reader.version_and_flags().is_err() {
        return false;
    }
    // The name ends with a zero byte. Other data can follow.
    let rest = NAMES.iter().find_map(|name| reader.0.strip_prefix(*name));
    rest.is_some_and(|rest| matches!(rest, [] | [0, ..]))
}
