//! The alpha channels of items, which are auxiliary items with a certain name.

use std::collections::BTreeMap;

use crate::{boxes::Reader, container::Container};

/// Returns the alpha channel of each item that has one. An item's first alpha channel counts.
///
/// Looks at every auxiliary item once. A file can relate thousands of them to each of a thousand tiles.
pub(crate) fn alpha_channels(container: &Container<'_>) -> BTreeMap<u32, u32> {
    first_accepted(&container.auxiliaries, |auxiliary| is_alpha(container, auxiliary))
}

/// Returns the first accepted auxiliary item of each item. Calls `is_accepted` once for each auxiliary item.
fn first_accepted(
    auxiliaries: &[(u32, u32)],
    mut is_accepted: impl FnMut(u32) -> bool,
) -> BTreeMap<u32, u32> {
    let mut known = BTreeMap::new();
    let mut channels = BTreeMap::new();
    for &(item, auxiliary) in auxiliaries {
        if *known.entry(auxiliary).or_insert_with(|| is_accepted(auxiliary)) {
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
    let Ok(item) = container.item(id) else { return false };
    let mut properties = container.properties(item).filter_map(Result::ok);
    let Some(property) = properties.find(|property| property.kind == b"auxC") else { return false };
    names_alpha_channel(property.content)
}

/// Returns true if the content of a box `auxC` or `auxi` names an alpha channel.
pub(crate) fn names_alpha_channel(content: &[u8]) -> bool {
    const NAMES: [&[u8]; 2] = [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"];
    let mut reader = Reader(content);
    if reader.version_and_flags().is_err() {
        return false;
    }
    // The name ends with a zero byte. Other data can follow.
    let rest = NAMES.iter().find_map(|name| reader.0.strip_prefix(*name));
    rest.is_some_and(|rest| matches!(rest, [] | [0, ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auxiliary_item_of_many_items_is_looked_at_once() {
        let auxiliaries: Vec<(u32, u32)> =
            (1..1000).flat_map(|item| [(item, 2000), (item, 2001), (item, 2002)]).collect();
        let mut looked_at = Vec::new();
        let channels = first_accepted(&auxiliaries, |auxiliary| {
            looked_at.push(auxiliary);
            auxiliary != 2000
        });
        assert_eq!(looked_at, [2000, 2001, 2002]);
        assert!(channels.len() == 999 && channels.values().all(|&auxiliary| auxiliary == 2001));
    }
}
