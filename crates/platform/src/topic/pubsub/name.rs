//! Names of topics and subscriptions: `projects/PROJECT/topics/NAME`, or `NAME` alone where the
//! project is known.

use std::str::FromStr;

/// A topic as a setting names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicName(Name);

/// A subscription as a setting names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionName(Name);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    project: Option<String>,
    name: String,
}

impl TopicName {
    /// `projects/PROJECT/topics/NAME`; `project` is for names without one. `None` where neither says.
    pub fn path(&self, project: Option<&str>) -> Option<String> {
        self.0.path("topics", project)
    }
}

impl SubscriptionName {
    /// `projects/PROJECT/subscriptions/NAME`; `project` is for names without one. `None` where
    /// neither says.
    pub fn path(&self, project: Option<&str>) -> Option<String> {
        self.0.path("subscriptions", project)
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
        let (project, name) = match parts.as_slice() {
            [name] => (None, *name),
            ["projects", project, kind, name] if *kind == collection && is_project(project) => {
                (Some((*project).to_owned()), *name)
            }
            _ => return Err(expected(collection)),
        };
        if is_name(name) { Ok(Self { project, name: name.to_owned() }) } else { Err(expected(collection)) }
    }

    fn path(&self, collection: &str, project: Option<&str>) -> Option<String> {
        let project = self.project.as_deref().or(project).filter(|project| !project.is_empty())?;
        Some(format!("projects/{project}/{collection}/{}", self.name))
    }
}

fn expected(collection: &str) -> String {
    format!(
        "expected NAME or projects/PROJECT/{collection}/NAME, where NAME begins with a letter and has 3 to \
         255 of letters, digits, - . _ ~ + %"
    )
}

/// <https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names>
fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+%".contains(&b);
    (3..=255).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
}

/// Loose on purpose: old projects are named `example.com:project`.
fn is_project(project: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-.:_".contains(&b);
    !project.is_empty() && project.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_a_project() {
        let short: TopicName = "images".parse().unwrap();
        assert_eq!(short.path(Some("p")).as_deref(), Some("projects/p/topics/images"));
        assert_eq!(short.path(None), None);
        assert_eq!(short.path(Some("")), None);
        let full: TopicName = "projects/other/topics/images".parse().unwrap();
        assert_eq!(full.path(Some("p")).as_deref(), Some("projects/other/topics/images"));
        let subscription: SubscriptionName =
            "projects/example.com:old/subscriptions/classify-pull".parse().unwrap();
        assert_eq!(
            subscription.path(None).as_deref(),
            Some("projects/example.com:old/subscriptions/classify-pull")
        );
    }

    #[test]
    fn what_is_no_name() {
        let bad = [
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
        for text in bad {
            let error = text.parse::<TopicName>().unwrap_err();
            assert!(error.contains("projects/PROJECT/topics/NAME"), "{text:?}: {error}");
        }
        assert!("projects/p/topics/images".parse::<SubscriptionName>().is_err());
    }
}
