//! The OCI runtimes that a daemon has registered.

use std::collections::BTreeMap;

use serde_json::Value;

use super::docker::Docker;
use super::error::DockerError;

impl Docker {
    /// The path of each registered runtime by its name.
    pub async fn runtimes(&self) -> Result<BTreeMap<String, String>, DockerError> {
        Ok(of_info(&self.info("list its runtimes").await?))
    }
}

fn of_info(body: &[u8]) -> BTreeMap<String, String> {
    let info: Value = serde_json::from_slice(body).unwrap_or_default();
    let runtimes = info.get("Runtimes").and_then(Value::as_object);
    let path = |runtime: &Value| runtime.get("path").and_then(Value::as_str).unwrap_or_default().to_owned();
    runtimes.into_iter().flatten().map(|(name, runtime)| (name.clone(), path(runtime))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_listed_by_name_with_their_path() {
        let body =
            br#"{"Runtimes":{"calico":{"path":"/usr/bin/calico-runc"},"runc":{"path":"runc"},"x":{}}}"#;
        let found = of_info(body);
        assert_eq!(found["calico"], "/usr/bin/calico-runc");
        assert_eq!(found.len(), 3);
        assert!(of_info(b"no JSON").is_empty());
    }
}
