//! Every name that a task gets in other people's systems, derived from its Mesos ContainerID.
//!
//! A teardown must be possible with nothing but the journal in hand, so no name depends on anything
//! that becomes known later (Docker's id, the address). Public formats:
//!
//! | where | name | example |
//! | --- | --- | --- |
//! | host interface | `cali` + 11 hex digits of the ContainerID | `cali5f3cbe1e77a` |
//! | IPAM handle | `mesos.<ContainerID>` | `mesos.5f3cbe1e-77aa-…` |
//! | WorkloadEndpoint workload | `<app>.<ContainerID>` | `web-prod.5f3cbe1e-77aa-…` |
//! | Consul service | path of the app, reversed | `/prod/web` gives `web-prod`, `web-prod-direct` |

use std::fmt;

use serde::{Deserialize, Serialize};

/// The orchestrator that our endpoints name in Calico.
pub const ORCHESTRATOR: &str = "mesos";
/// The endpoint's and the interface's name inside the container.
pub const ENDPOINT: &str = "eth0";
/// The Calico namespace our endpoints live in; `calicoctl get wep` looks there first.
pub const NAMESPACE: &str = "default";

/// A Mesos ContainerID: a UUID in its usual text form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no Mesos ContainerID (a UUID such as 5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d)")]
pub struct InvalidContainerId(String);

impl ContainerId {
    /// Accepts a UUID in any case with its dashes, since that is what the agent makes.
    pub fn parse(text: &str) -> Result<Self, InvalidContainerId> {
        let uuid = uuid::Uuid::try_parse(text).map_err(|_| InvalidContainerId(text.to_owned()))?;
        Ok(Self(uuid.hyphenated().to_string()))
    }

    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host end of the veth pair: at most 15 characters, as the kernel wants it.
    pub fn interface(&self) -> String {
        let hex: String = self.0.chars().filter(|c| *c != '-').take(11).collect();
        format!("cali{hex}")
    }

    /// The IPAM handle under which every address of the task is recorded.
    pub fn handle(&self) -> String {
        format!("{ORCHESTRATOR}.{}", self.0)
    }

    /// The endpoint's workload: readable in `calicoctl get wep`, unique by the ContainerID.
    ///
    /// `app` is any text; it is reduced to what Calico accepts and cut so that the whole endpoint
    /// name stays below Calico's 253 characters, doubled dashes included.
    pub fn workload(&self, app: &str) -> String {
        let mut app = dns_label(app, 60);
        if app.is_empty() {
            app.push_str("task");
        }
        format!("{app}.{}", self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidContainerId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// The service name of an app, as mesos-dns and mesos-consul form it: the path reversed, joined by
/// dashes. `/prod/web` gives `web-prod`.
pub fn service_name(app_id: &str) -> String {
    let reversed: Vec<&str> = app_id.split('/').filter(|part| !part.is_empty()).rev().collect();
    dns_label(&reversed.join("-"), 56)
}

/// Lower-case letters, digits and single inner dashes, at most `max` characters.
///
/// Whatever else the text holds becomes a dash, so that nothing a user types can reach a key, a
/// path or another service's name.
pub fn dns_label(text: &str, max: usize) -> String {
    let mut label = String::new();
    for c in text.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() {
            label.push(c);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
        if label.len() == max {
            break;
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_container() {
        let id = ContainerId::parse("5F3CBE1E-77aa-4d1b-8b0e-0c1f2a3b4c5d").unwrap();
        assert_eq!(id.interface(), "cali5f3cbe1e77a");
        assert_eq!(id.handle(), "mesos.5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d");
        assert_eq!(id.workload("/prod/Web_1"), "prod-web-1.5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d");
        assert_eq!(id.workload("ü"), "task.5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d");
        assert!(ContainerId::parse("../etc/passwd").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_app_gets_a_name_that_is_more_than_one(app in "(?s).{0,80}|[a-z/.-]{0,90}") {
            let name = service_name(&app);
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            proptest::prop_assert!(name.len() <= 56 && name.chars().all(legal));
            proptest::prop_assert!(!name.starts_with('-') && !name.ends_with('-') && !name.contains("--"));
            let id = ContainerId::random();
            let workload = id.workload(&app);
            let tail = format!(".{id}");
            proptest::prop_assert!(workload.strip_suffix(&tail).is_some_and(|app| !app.is_empty() && app.chars().all(legal)));
        }

        #[test]
        fn only_a_uuid_is_a_container(text in "(?s).{0,40}|[0-9a-fA-F-]{30,40}") {
            if let Ok(id) = ContainerId::parse(&text) {
                proptest::prop_assert_eq!(id.as_str().len(), 36);
                proptest::prop_assert!(id.interface().len() <= 15);
            }
        }
    }

    #[test]
    fn service_names() {
        assert_eq!(service_name("/prod/web"), "web-prod");
        assert_eq!(service_name("testapp"), "testapp");
        assert_eq!(service_name("/a//b_c/"), "b-c-a");
        assert_eq!(service_name("../../x"), "x");
        assert_eq!(service_name(&"a".repeat(4096)).len(), 56);
    }
}
