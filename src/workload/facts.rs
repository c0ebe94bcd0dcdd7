//! What a daemon says of itself and of its containers, as it says it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;
use tokio::time::timeout;

use super::docker::{status_error, Docker};
use super::error::DockerError;
use super::inspect::daemon_words;
use crate::limits::DOCKER_INSPECT;

impl Docker {
    /// The answer to a GET of this path, once. `doing`: what is asked for, for messages.
    pub async fn document(&self, path: &str, doing: &'static str) -> Result<Value, DockerError> {
        let bytes = self.get(path, doing, DOCKER_INSPECT).await?;
        serde_json::from_slice(&bytes).map_err(|error| DockerError::Daemon {
            doing: doing.to_owned(),
            status: None,
            words: format!("its answer is not JSON: {error}"),
        })
    }

    pub(super) async fn get(
        &self,
        path: &str,
        doing: &'static str,
        limit: Duration,
    ) -> Result<Bytes, DockerError> {
        let ask = async {
            let answer = self.transport.ask(Method::GET, path, &[]).await;
            let answer = answer.map_err(|error| self.send_error(doing, error))?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await.map_err(|error| self.away(error))?.to_bytes();
            match status.is_success() {
                true => Ok(bytes),
                false => Err(status_error(doing, status.as_u16(), daemon_words(&bytes))),
            }
        };
        match timeout(limit, ask).await {
            Ok(answer) => answer,
            Err(_) => Err(self.slow(doing, limit)),
        }
    }
}
