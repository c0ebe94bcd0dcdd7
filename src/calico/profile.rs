//! Profiles made on first use: members reach each other, and everything may go out.
//!
//! The shape is that of the profiles that Calico's CNI plugin makes for a network. Membership is a label
//! that the profile gives its endpoints; its key has a prefix that no task can set itself
//! (see `labels`), so an app cannot join a profile by a label.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::model::{Metadata, Peer, ProfileSpec, Resource, Rule};
use super::CalicoError;
use crate::names::{is_resource_name, LABEL_MAX};

pub(super) const MEMBERSHIP: &str = "mesos-profile/";
/// Calico answers for this one itself; it cannot be written.
const BUILT_IN: &str = "projectcalico-default-allow";

/// Whether Calico accepts this as the name of a profile.
pub fn validate_name(name: &str) -> Result<(), CalicoError> {
    if is_resource_name(name) {
        return Ok(());
    }
    Err(CalicoError::ProfileName(name.to_owned()))
}

pub(super) fn is_built_in(name: &str) -> bool {
    name == BUILT_IN
}

/// The profile as it is created when it does not exist.
pub(super) fn new(name: &str, allow_nets: &[IpNet], uid: String, created: String) -> Resource<ProfileSpec> {
    let label = membership_label(name);
    let allow = |source: Peer| Rule { action: "Allow".into(), source, destination: Peer::default() };
    let mut ingress = vec![allow(Peer { selector: format!("has({label})"), ..Peer::default() })];
    // Calico refuses a rule that mixes both families.
    for is_v4 in [true, false] {
        let of_family = allow_nets.iter().filter(|net| net.addr().is_ipv4() == is_v4);
        let nets: Vec<String> = of_family.map(|net| net.trunc().to_string()).collect();
        if !nets.is_empty() {
            ingress.push(allow(Peer { nets, ..Peer::default() }));
        }
    }
    let metadata = Metadata {
        name: name.into(),
        uid: Some(uid),
        creation_timestamp: Some(created),
        ..Metadata::default()
    };
    let labels_to_apply = BTreeMap::from([(label, String::new())]);
    Resource::new(
        "Profile",
        metadata,
        ProfileSpec { ingress, egress: vec![allow(Peer::default())], labels_to_apply },
    )
}

/// A key that is legal for every profile name; long names are cut and distinguished by a checksum.
pub(super) fn membership_label(name: &str) -> String {
    if name.len() <= LABEL_MAX {
        return format!("{MEMBERSHIP}{name}");
    }
    let checksum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{MEMBERSHIP}{}-{checksum:016x}", name[..LABEL_MAX - 17].trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calico::model::to_json;

    #[test]
    fn a_profile_has_the_shape_of_calicos_own() {
        let profile = new("dev", &[], "u".into(), "t".into());
        assert_eq!(
            String::from_utf8(to_json(&profile)).unwrap(),
            r#"{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"dev","uid":"u","creationTimestamp":"t"},"spec":{"ingress":[{"action":"Allow","source":{"selector":"has(mesos-profile/dev)"},"destination":{}}],"egress":[{"action":"Allow","source":{},"destination":{}}],"labelsToApply":{"mesos-profile/dev":""}}}"#
        );
    }

    #[test]
    fn configured_sources_get_a_rule_a_family() {
        let nets: Vec<IpNet> =
            ["10.0.0.1/24", "fd00::/8", "10.1.0.0/24"].map(|net| net.parse().unwrap()).into();
        let spec = new("dev", &nets, "u".into(), "t".into()).spec;
        let rules: Vec<Vec<String>> = spec.ingress.into_iter().map(|rule| rule.source.nets).collect();
        assert_eq!(
            rules,
            [vec![], vec!["10.0.0.0/24".to_owned(), "10.1.0.0/24".to_owned()], vec!["fd00::/8".to_owned()]]
        );
    }

    #[test]
    fn long_names_keep_a_legal_label_of_their_own() {
        let (a, b) = (
            membership_label(&format!("{}a", "x".repeat(200))),
            membership_label(&format!("{}b", "x".repeat(200))),
        );
        assert_ne!(a, b);
        assert!(a.len() - MEMBERSHIP.len() <= LABEL_MAX, "{a}");
        assert!(validate_name("dev").is_ok() && validate_name("Dev").is_err());
    }
}
