//! The edits of a container's `config.json`: pure, text in and text out.
//!
//! Everything else keeps its meaning: order of keys, unknown keys, integers over the whole 64 bits.

use std::path::{Path, PathBuf};

use serde_json::{json, Value};

#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error("it is not valid JSON")]
    Json(#[from] serde_json::Error),
    #[error("'{0}' in it is not of the kind that the OCI specification asks for")]
    Shape(&'static str),
    #[error("the namespace's path is not valid UTF-8")]
    Path,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct EditedSpec {
    pub text: String,
    /// The file behind the container's /etc/hosts, when it is Docker's own for this container.
    pub hosts: Option<PathBuf>,
}

/// Puts the container into `namespace`, and takes Docker's own network hook out.
pub fn edit(text: &str, docker_id: &str, namespace: &Path) -> Result<EditedSpec, OciError> {
    let mut spec: Value = serde_json::from_str(text)?;
    set_namespace(&mut spec, namespace.to_str().ok_or(OciError::Path)?)?;
    drop_network_hook(&mut spec);
    let hosts = docker_hosts(&spec, docker_id);
    Ok(EditedSpec { text: serde_json::to_string(&spec)?, hosts })
}

fn set_namespace(spec: &mut Value, path: &str) -> Result<(), OciError> {
    let spec = spec.as_object_mut().ok_or(OciError::Shape("config.json"))?;
    let linux = spec.entry("linux").or_insert_with(|| json!({}));
    let linux = linux.as_object_mut().ok_or(OciError::Shape("linux"))?;
    let namespaces = linux.entry("namespaces").or_insert_with(|| json!([]));
    if namespaces.is_null() {
        *namespaces = json!([]);
    }
    let namespaces = namespaces.as_array_mut().ok_or(OciError::Shape("linux.namespaces"))?;
    let mut found = false;
    for namespace in namespaces.iter_mut().filter(|namespace| namespace["type"] == "network") {
        namespace["path"] = path.into();
        found = true;
    }
    if !found {
        // A container on the host's network names no network namespace.
        namespaces.push(json!({"type": "network", "path": path}));
    }
    Ok(())
}

/// Docker 20.10 moves its own sandbox's interfaces in by a prestart hook; other people's hooks stay.
fn drop_network_hook(spec: &mut Value) {
    let Some(hooks) = spec.get_mut("hooks").and_then(Value::as_object_mut) else { return };
    let Some(prestart) = hooks.get_mut("prestart").and_then(Value::as_array_mut) else { return };
    let before = prestart.len();
    prestart.retain(|hook| !is_network_hook(hook));
    if prestart.len() < before && prestart.is_empty() {
        hooks.shift_remove("prestart");
    }
}

fn is_network_hook(hook: &Value) -> bool {
    let of_dockerd = |path: &str| {
        let pid = path.strip_prefix("/proc/").and_then(|rest| rest.strip_suffix("/exe"));
        pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
    };
    hook["path"].as_str().is_some_and(of_dockerd) && hook["args"][0] == "libnetwork-setkey"
}

fn docker_hosts(spec: &Value, docker_id: &str) -> Option<PathBuf> {
    let mounts = spec["mounts"].as_array()?;
    let hosts = mounts.iter().find(|mount| mount["destination"] == "/etc/hosts")?;
    let source = Path::new(hosts["source"].as_str()?);
    // A volume of the task over /etc/hosts is the task's own matter.
    (source.is_absolute() && source.ends_with(Path::new(docker_id).join("hosts"))).then(|| source.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::any_json::nested;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn edited(spec: &Value) -> (Value, Option<PathBuf>) {
        let edited = edit(&spec.to_string(), ID, Path::new("/run/x/netns")).unwrap();
        (serde_json::from_str(&edited.text).unwrap(), edited.hosts)
    }

    #[test]
    fn only_dockers_own_hook_goes() {
        let own = json!({"path": "/proc/123/exe", "args": ["libnetwork-setkey", "-exec-root=/var/run/docker", ID, "x"]});
        let other = json!({"path": "/usr/bin/nvidia", "args": ["nvidia", "prestart"]});
        let disguised = json!({"path": "/usr/bin/x", "args": ["libnetwork-setkey"]});
        let spec = json!({"hooks": {"prestart": [own, other, disguised], "poststop": [own]}});
        let (after, _) = edited(&spec);
        assert_eq!(after["hooks"], json!({"prestart": [other, disguised], "poststop": [own]}));
        let (after, _) = edited(&json!({"hooks": {"prestart": [own]}}));
        assert_eq!(after["hooks"], json!({}));
    }

    #[test]
    fn the_namespace_is_set_or_added() {
        let (after, _) = edited(&json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]}}));
        assert_eq!(
            after["linux"]["namespaces"],
            json!([{"type": "pid"}, {"type": "network", "path": "/run/x/netns"}])
        );
        let (after, _) =
            edited(&json!({"linux": {"namespaces": [{"type": "network", "path": "/proc/1/ns/net"}]}}));
        assert_eq!(after["linux"]["namespaces"], json!([{"type": "network", "path": "/run/x/netns"}]));
        let (after, _) = edited(&json!({"linux": {"namespaces": null}}));
        assert_eq!(after["linux"]["namespaces"], json!([{"type": "network", "path": "/run/x/netns"}]));
        assert!(edit("[]", ID, Path::new("/x")).is_err());
        assert!(edit("{\"linux\": 7}", ID, Path::new("/x")).is_err());
    }

    #[test]
    fn the_hosts_file_only_when_it_is_dockers() {
        let mount = |source: &str| json!({"mounts": [{"destination": "/etc/hosts", "source": source}]});
        let dockers = format!("/var/lib/docker/containers/{ID}/hosts");
        assert_eq!(edited(&mount(&dockers)).1, Some(dockers.clone().into()));
        assert_eq!(edited(&mount("/etc/hosts")).1, None);
        assert_eq!(edited(&mount(&format!("{ID}/hosts"))).1, None);
        assert_eq!(edited(&mount(&format!("/evil{ID}/hosts"))).1, None);
        assert_eq!(edited(&json!({"mounts": []})).1, None);
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        let text = r#"{"z":18446744073709551615,"a":-9223372036854775808,"m":9007199254740993,"linux":{}}"#;
        let edited = edit(text, ID, Path::new("/n")).unwrap().text;
        assert_eq!(
            edited,
            r#"{"z":18446744073709551615,"a":-9223372036854775808,"m":9007199254740993,"linux":{"namespaces":[{"type":"network","path":"/n"}]}}"#
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        nested(leaf, "[a-z]{1,6}")
    }

    proptest! {
        #[test]
        fn every_other_field_of_the_specification_stays(rest in any_json(), annotations in any_json()) {
            let spec = json!({"x": rest, "linux": {"namespaces": [{"type": "network"}], "y": annotations}});
            let (mut after, _) = edited(&spec);
            after["linux"]["namespaces"] = json!([{"type": "network"}]);
            prop_assert_eq!(after, spec);
        }

        #[test]
        fn any_text_is_edited_or_refused_without_a_panic(text in "\\PC{0,60}") {
            let _ = edit(&text, ID, Path::new("/x"));
        }
    }
}
