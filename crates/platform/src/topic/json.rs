//! Parses JSON of unknown size without building the members that nobody reads.
//!
//! A parsed [`serde_json::Value`] can take a hundred times as much memory as its text, so a request of a few
//! megabytes could exhaust the memory of the service. These functions borrow from the text instead.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::push::DeliveryError;

/// Maximum number of attributes of a message, as in Pub/Sub.
const MAX_ATTRIBUTES: usize = 100;
/// Maximum length of the name of an attribute in bytes, as in Pub/Sub.
const MAX_ATTRIBUTE_NAME_BYTES: usize = 256;
/// Maximum length of the value of an attribute in bytes, as in Pub/Sub.
const MAX_ATTRIBUTE_VALUE_BYTES: usize = 1024;
/// Maximum length in bytes of an id or a name that only the log contains. Those of Google are shorter.
const MAX_NAME_BYTES: usize = 256;
/// Maximum number of bytes of the parser's message in a [`DeliveryError`]. The parser quotes the text that it
/// refuses, and that text can be as long as the message.
const MAX_REASON_BYTES: usize = 200;

/// A JSON string. It is borrowed from the text unless it has escape sequences.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The attributes of a message. Deserializing fails if they exceed the limits of Pub/Sub.
#[derive(Debug, Default)]
pub(super) struct Attributes(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AttributesVisitor)
    }
}

struct AttributesVisitor;

impl<'de> Visitor<'de> for AttributesVisitor {
    type Value = Attributes;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object whose members are strings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Attributes, M::Error> {
        let mut attributes = BTreeMap::new();
        while let Some((Text(name), Text(value))) = members.next_entry()? {
            if name.len() > MAX_ATTRIBUTE_NAME_BYTES || value.len() > MAX_ATTRIBUTE_VALUE_BYTES {
                return Err(M::Error::custom("an attribute is too long"));
            }
            attributes.insert(name.into_owned(), value.into_owned());
            if attributes.len() > MAX_ATTRIBUTES {
                return Err(M::Error::custom("there are too many attributes"));
            }
        }
        Ok(Attributes(attributes))
    }
}

/// Parses the members of a JSON object. Any other JSON value has no members, so it gives the default of `T`.
pub(super) fn parse_members<'a, T>(json: &'a [u8]) -> Result<T, serde_json::Error>
where
    T: Default + Deserialize<'a>,
{
    // serde would also parse an array into a struct.
    match json.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(json),
        _ => serde_json::from_slice::<IgnoredAny>(json).map(|_| T::default()),
    }
}

/// Deserializes a member that may have any type, so that its presence can be distinguished from `null`.
pub(super) fn any_value<'de: 'a, 'a, D>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error>
where
    D: Deserializer<'de>,
{
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Returns the string `value`, or `None` if `value` is missing or not a string.
pub(super) fn text_of(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value?.get()).ok().map(|Text(text)| text)
}

/// Returns an id or a name that only the log contains, cut to [`MAX_NAME_BYTES`].
pub(super) fn shorten(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}

/// Creates the error of text that is not the expected JSON. `context` is put before the parser's message.
pub(super) fn bad_json(context: &str, error: &serde_json::Error) -> DeliveryError {
    let mut reason = error.to_string();
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    DeliveryError::BadJson(format!("{context}{reason}"))
}
