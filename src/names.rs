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
//!
//! What has to be cut to fit ends with a [`fingerprint`] of the whole, so that two apps whose ids differ only behind
//! the cut have two names; what fits stays as it is. Ids that become equal because case and separators are folded
//! (`/a/b` and `/b-a`, `a.b` and `a-b`, `/Web` and `/web`, `a_b` and `a-b`) have one name, as in mesos-dns.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name under which calico-runc is registered with Docker.
pub const RUNTIME: &str = "calico";

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
#[error("'{0}' is not a Mesos ContainerID (a UUID such as 5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d)")]
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

/// The longest DNS label, and the longest label of Calico: its value, and its key behind the prefix.
pub const LABEL_MAX: usize = 63;
/// The longest name of a resource of Calico, a DNS-1123 subdomain.
pub const RESOURCE_NAME_MAX: usize = 253;
/// Is this text what Calico accepts as a resource's name (lower-case DNS-1123 subdomain)?
pub fn is_resource_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= RESOURCE_NAME_MAX
        && text.split('.').all(|part| {
            part.chars().all(inner) && outer(part.chars().next()) && outer(part.chars().next_back())
        })
}

/// The name that is most like an unknown one, to be suggested; `alike` says how much, between 0 and 1, it has to be.
pub fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>, alike: f64) -> Option<&'a str> {
    let scored = names.map(|name| (strsim::jaro_winkler(text, name), name));
    let best = scored.filter(|(score, _)| *score > alike).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, name)| name)
}

/// What Consul's names may have beside `-direct`.
const SERVICE_MAX: usize = LABEL_MAX - "-direct".len();

/// The service name of an app, as mesos-dns and mesos-consul form it: the path reversed, joined by
/// dashes. `/prod/web` gives `web-prod`.
pub fn service_name(app_id: &str) -> String {
    let reversed: Vec<&str> = app_id.split('/').filter(|part| !part.is_empty()).rev().collect();
    let reversed = reversed.join("-");
    let name = dns_label(&reversed, usize::MAX);
    match name.len() <= SERVICE_MAX {
        true => name,
        false => shortened(&name, SERVICE_MAX, &reversed),
    }
}

/// `text` in at most `max` bytes: its beginning, and the fingerprint of the whole that it was made of.
pub fn shortened(text: &str, max: usize, whole: &str) -> String {
    let room = max.saturating_sub(FINGERPRINT + 1);
    let begin = text[..text.floor_char_boundary(room)].trim_end_matches(['-', '.', '_']);
    format!("{begin}-{}", fingerprint(whole))
}

const FINGERPRINT: usize = 8;

/// Eight hexadecimal digits that distinguish texts; the same in every release, since names are made of them.
///
/// FNV-1a, whose halves are folded together. It protects against chance, not against a search for two texts
/// of one fingerprint: an app's id can be chosen so that it has exactly another app's name.
pub fn fingerprint(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

/// Lower-case letters, digits and single inner dashes, at most `max` characters.
///
/// Every other character becomes a dash, so that nothing a user types can reach a key, a
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
    fn the_nearest_name_is_one_that_is_alike() {
        let of = |text| nearest(text, ["profile", "pool", "policy"].into_iter(), 0.8);
        assert_eq!((of("profle"), of("pol"), of("xyz")), (Some("profile"), Some("pool"), None));
    }

    #[test]
    fn resource_names_follow_calicos_rule() {
        for good in ["dev", "a.b-c", "0", "web-3.5f3cbe1e"] {
            assert!(is_resource_name(good), "{good}");
        }
        for bad in ["", "Dev", "a_b", "-a", "a-", "a..b", "a/b", "ü", ".a", &"a".repeat(254)] {
            assert!(!is_resource_name(bad), "{bad}");
        }
    }

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
        fn every_app_gets_one_valid_name(app in "(?s).{0,80}|[a-z/.-]{0,90}") {
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
    fn service_names_are_made_from_app_ids() {
        assert_eq!(service_name("/prod/web"), "web-prod");
        assert_eq!(service_name("testapp"), "testapp");
        assert_eq!(service_name("/a//b_c/"), "b-c-a");
        assert_eq!(service_name("../../x"), "x");
        assert_eq!(service_name(&"a".repeat(4096)).len(), 56);
        assert_eq!(service_name(&"a".repeat(56)), "a".repeat(56), "what fits stays");
    }

    #[test]
    fn a_cut_keeps_two_apps_apart() {
        let deep = "/prod/eu-central-1/customer-portal/payment-gateway/reconciliation";
        let names = ["", "-v2", "/blue", "/green"].map(|tail| service_name(&format!("{deep}{tail}")));
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{names:?}");
        // As it stands in Consul: another text would be another name after an upgrade.
        assert_eq!(service_name(deep), "reconciliation-payment-gateway-customer-portal-08b5302e");
        assert_eq!(service_name(&format!("{deep}/")), service_name(deep));
        assert_eq!((fingerprint(""), fingerprint("a")), ("4fd0bfc1".into(), "296230c0".into()));
    }
}
