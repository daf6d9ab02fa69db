//! Names of topics and subscriptions, as settings contain them.
//!
//! The name of a topic is `projects/PROJECT/topics/NAME`, or `NAME` alone if another setting contains the
//! project. The name of a subscription has `subscriptions` in place of `topics`.

use std::str::FromStr;

/// Name of a topic, parsed from a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicName(Name);

/// Name of a subscription, parsed from a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionName(Name);

/// Name of a topic or a subscription. The methods get the collection, which is `topics` or `subscriptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    /// Project in the name, if the name contains one.
    project: Option<String>,
    /// Last part of the name.
    short_name: String,
}

impl TopicName {
    /// Returns `projects/PROJECT/topics/NAME`, or `None` if the project is unknown.
    ///
    /// `project` is the default for a name that does not contain a project.
    pub fn resource_name(&self, project: Option<&str>) -> Option<String> {
        self.0.resource_name("topics", project)
    }
}

impl SubscriptionName {
    /// Returns `projects/PROJECT/subscriptions/NAME`, or `None` if the project is unknown.
    ///
    /// `project` is the default for a name that does not contain a project.
    pub fn resource_name(&self, project: Option<&str>) -> Option<String> {
        self.0.resource_name("subscriptions", project)
    }
}

impl FromStr for TopicName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Name::parse(text, "topics").map(Self)
    }
}

impl FromStr for SubscriptionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Name::parse(text, "subscriptions").map(Self)
    }
}

impl Name {
    fn parse(text: &str, collection: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (project, short_name) = match parts.as_slice() {
            [short_name] => (None, *short_name),
            ["projects", project, part, short_name] if *part == collection && is_valid_project(project) => {
                (Some((*project).to_owned()), *short_name)
            }
            _ => return Err(expected_forms(collection)),
        };
        if is_valid_short_name(short_name) {
            Ok(Self { project, short_name: short_name.to_owned() })
        } else {
            Err(expected_forms(collection))
        }
    }

    fn resource_name(&self, collection: &str, project: Option<&str>) -> Option<String> {
        let project = self.project.as_deref().or(project).filter(|project| !project.is_empty())?;
        Some(format!("projects/{project}/{collection}/{}", self.short_name))
    }
}

fn expected_forms(collection: &str) -> String {
    format!(
        "expected NAME or projects/PROJECT/{collection}/NAME, where NAME begins with a letter and has 3 to \
         255 characters: letters, digits, - . _ ~ + %"
    )
}

/// Returns true if `name` has a valid length and valid characters.
///
/// The rules are in <https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names>.
fn is_valid_short_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+%".contains(&b);
    (3..=255).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
}

/// Returns true if all characters of `project` are valid in a project id. Old ids contain dots and a colon,
/// as in `example.com:project`.
fn is_valid_project(project: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-.:_".contains(&b);
    !project.is_empty() && project.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_name_contains_the_given_project_if_the_name_has_none() {
        let short: TopicName = "images".parse().unwrap();
        assert_eq!(short.resource_name(Some("p")).as_deref(), Some("projects/p/topics/images"));
        assert_eq!(short.resource_name(None), None);
        assert_eq!(short.resource_name(Some("")), None);
        let full: TopicName = "projects/other/topics/images".parse().unwrap();
        assert_eq!(full.resource_name(Some("p")).as_deref(), Some("projects/other/topics/images"));
        let subscription: SubscriptionName =
            "projects/example.com:old/subscriptions/classify-pull".parse().unwrap();
        assert_eq!(
            subscription.resource_name(None).as_deref(),
            Some("projects/example.com:old/subscriptions/classify-pull")
        );
    }

    #[test]
    fn invalid_name_is_refused_with_the_expected_forms() {
        let invalid = [
            "",
            "ab",
            "1abc",
            "a b c",
            "projects/p/topics",
            "projects/p/topics/",
            "projects//topics/images",
            "projects/p/subscriptions/images",
            "/images",
            "gs://images",
        ];
        for text in invalid {
            let error = text.parse::<TopicName>().unwrap_err();
            assert!(error.contains("projects/PROJECT/topics/NAME"), "{text:?}: {error}");
        }
        assert!("projects/p/topics/images".parse::<SubscriptionName>().is_err());
    }
}
