//! The OCI runtimes that a daemon has registered.

use std::collections::BTreeMap;

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;

use super::docker::{status_error, Docker};
use super::error::DockerError;
use super::inspect::daemon_words;
use crate::limits::DOCKER_INFO;

const DOING: &str = "list its runtimes";

impl Docker {
    /// The path of each registered runtime by its name.
    pub async fn runtimes(&self) -> Result<BTreeMap<String, String>, DockerError> {
        let ask = async {
            let answer = self.transport.ask(Method::GET, "/info", &[]).await;
            let answer = answer.map_err(|error| self.send_error(DOING, error))?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await.map_err(|error| self.away(error))?.to_bytes();
            match status.is_success() {
                true => Ok(of_info(&bytes)),
                false => Err(status_error(DOING, status.as_u16(), daemon_words(&bytes))),
            }
        };
        match tokio::time::timeout(DOCKER_INFO, ask).await {
            Ok(answer) => answer,
            Err(_) => Err(self.slow(DOING, DOCKER_INFO)),
        }
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
    fn paths_by_name() {
        let body =
            br#"{"Runtimes":{"calico":{"path":"/usr/bin/calico-runc"},"runc":{"path":"runc"},"x":{}}}"#;
        let found = of_info(body);
        assert_eq!(found["calico"], "/usr/bin/calico-runc");
        assert_eq!(found.len(), 3);
        assert!(of_info(b"no JSON").is_empty());
    }
}
