//! Mesos labels as an endpoint's labels.
//!
//! Mesos allows any text, Calico only Kubernetes' syntax. The mapping is the one of Calico's own CNI plugin for Mesos,
//! so that policies written for it select the same tasks: slashes become dots, each run of other characters a dash, and
//! what then mixes dots with dashes becomes one dot. What is longer than a label may be ends with a fingerprint of the
//! whole: no policy selects one app for another's label. As no slash survives, no task can give itself a label with a
//! prefix, such as the membership labels of our profiles.

use std::collections::BTreeMap;

use crate::names::{shortened, LABEL_MAX, NAMESPACE, ORCHESTRATOR};

/// What Calico's client sets itself on every endpoint; policies of a namespace rest on the first.
const FORCED: [(&str, &str); 2] =
    [("projectcalico.org/namespace", NAMESPACE), ("projectcalico.org/orchestrator", ORCHESTRATOR)];
const RESERVED: &str = "projectcalico.org/";
/// What Calico puts before the labels of a namespace and of a service account when it gives them to an endpoint:
/// `namespaceSelector` and `serviceAccountSelector` of a policy look for nothing else.
const INHERITED: [&str; 2] = ["pcns.", "pcsa."];

/// The labels of an endpoint for a task with these Mesos labels.
///
/// A key in Calico's own domain, one that a namespace would have, and one of which nothing is left are dropped; of two
/// keys that become the same the first in order stays.
pub(super) fn endpoint_labels(mesos: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> =
        FORCED.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    for (key, value) in mesos {
        if key.to_ascii_lowercase().starts_with(RESERVED) {
            continue;
        }
        let key = sanitise(key);
        if !key.is_empty() && !INHERITED.iter().any(|prefix| key.starts_with(prefix)) {
            labels.entry(key).or_insert_with(|| sanitise(value));
        }
    }
    labels
}

/// Letters, digits, and inner dots, dashes and underscores; at most [`LABEL_MAX`] characters.
fn sanitise(text: &str) -> String {
    let mut clean = String::new();
    let mut gap = String::new();
    let mut foreign = false;
    for c in text.chars() {
        let follows_foreign = std::mem::replace(&mut foreign, false);
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => {
                if !clean.is_empty() {
                    clean.push_str(&joined(&gap));
                }
                gap.clear();
                clean.push(c);
            }
            '/' | '.' => gap.push('.'),
            '_' | '-' => gap.push(c),
            _ => {
                foreign = true;
                if !follows_foreign {
                    gap.push('-');
                }
            }
        }
    }
    match clean.len() <= LABEL_MAX {
        true => clean,
        false => shortened(&clean, LABEL_MAX, text),
    }
}

/// A run of separators as it stays between two letters.
fn joined(gap: &str) -> String {
    match gap {
        _ if gap.contains('.') && gap.len() > 1 => ".".to_owned(),
        _ => gap.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_folded_as_calicos_plugin_folds_them() {
        for (raw, clean) in [
            ("team/name", "team.name"),
            ("a b_c--x", "a-b_c--x"),
            ("-bad-", "bad"),
            ("ünï ç0de!", "n-0de"),
            ("", ""),
        ] {
            assert_eq!(sanitise(raw), clean);
        }
        assert_eq!(sanitise(&"a".repeat(LABEL_MAX)), "a".repeat(LABEL_MAX), "what fits stays");
        assert_eq!(sanitise(&format!("{}.b", "a".repeat(62))).len(), 63);
    }

    #[test]
    fn long_values_that_differ_behind_the_cut_stay_different() {
        let long = |tail: &str| format!("{}{tail}", "team-".repeat(20));
        let mesos =
            [("a", long("blue")), ("b", long("green")), (&long("x"), "1".into()), (&long("y"), "2".into())];
        let labels = endpoint_labels(&mesos.map(|(key, value)| (key.to_owned(), value)).into());
        assert_eq!(labels.len(), 4 + FORCED.len(), "{labels:?}");
        assert_ne!(labels["a"], labels["b"]);
        assert!(labels
            .iter()
            .all(|(key, value)| key.starts_with(RESERVED) || key.len().max(value.len()) <= LABEL_MAX));
    }

    #[test]
    fn an_app_cannot_override_the_forced_labels() {
        let mesos = [
            ("projectcalico.org/namespace", "kube-system"),
            ("app", "web"),
            ("a/b", "1"),
            ("a.b", "2"),
            ("%", "x"),
            ("pcns.team", "admins"),
            ("/pcns/team", "admins"),
            ("-pcsa..name", "root"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let labels = endpoint_labels(&mesos);
        let text: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "a.b=2",
                "app=web",
                "projectcalico.org/namespace=default",
                "projectcalico.org/orchestrator=mesos"
            ]
        );
    }
}
