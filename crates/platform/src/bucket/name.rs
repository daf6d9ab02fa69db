//! [`ObjectName`] is the validated name of an object.

use std::fmt;

/// The error for a text that breaks a rule of [`ObjectName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an object name: {0:?}")]
pub struct InvalidObjectName(pub String);

/// A validated object name, such as `<id>/image.jpg`.
///
/// The name has at most 1,024 bytes, which is the limit of Cloud Storage. It has no control character and no
/// backslash. `/` separates the name into parts, none of which is empty, `.` or `..`. So the path of an
/// object stays inside the folder of its bucket.
///
/// Names have the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Validates `name`.
    ///
    /// # Errors
    /// Returns [`InvalidObjectName`] if `name` breaks a rule of this type.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidObjectName> {
        let name = name.into();
        let is_good_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_good_char = |c: char| !c.is_control() && c != '\\';
        if name.len() <= 1024 && name.split('/').all(is_good_part) && name.chars().all(is_good_char) {
            Ok(Self(name))
        } else {
            Err(InvalidObjectName(name))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_name_is_refused() {
        let too_long = "x".repeat(1025);
        let invalid = [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", "a\\b", "a\0", "a\n",
            "a\u{7f}", &too_long,
        ];
        for name in invalid {
            assert_eq!(ObjectName::new(name), Err(InvalidObjectName(name.to_owned())));
        }
    }

    #[test]
    fn valid_name_is_accepted() {
        for name in ["a", "a/b.jpg", "...", "a..b", ".hidden", "ä b/ç", &"x".repeat(1024)] {
            assert_eq!(ObjectName::new(name).unwrap().as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn path_of_a_valid_name_stays_below_the_root(text in "[./a\\\\\0]{0,12}") {
            if let Ok(name) = ObjectName::new(text) {
                let path = std::path::Path::new("/root").join(name.as_str());
                let is_normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.components().skip(1).all(is_normal));
                prop_assert!(path.starts_with("/root"));
            }
        }
    }
}
