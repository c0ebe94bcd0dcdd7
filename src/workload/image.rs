//! Images: looked for on the host first, pulled when missing or when the app insists.
//!
//! Docker reports a pull by some events a second for each layer. A log wants a line now and then:
//! `Thinner` passes on what is said once and sums up the rest every few seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;

use super::credentials::Credentials;
use super::docker::Docker;
use super::error::DockerError;
use crate::error::Blame;
use crate::limits::{DOCKER_LOOK, DOCKER_PULL_SILENCE};

const EVERY: Duration = Duration::from_secs(5);

/// An image that a container needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageRequest<'a> {
    pub image: &'a str,
    pub platform: Option<&'a str>,
    /// Pull it even if it is there.
    pub force: bool,
    /// For its registry.
    pub credentials: Option<&'a Credentials>,
}

impl Docker {
    /// Sees to it that the image is on the host. `progress` gets lines for a log.
    pub async fn ensure_image(
        &self,
        request: ImageRequest<'_>,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), DockerError> {
        let ImageRequest { image, platform, force, .. } = request;
        // Whether an image is of the right platform shows when the container is made.
        if !force && platform.is_none() {
            let tagged = with_tag(image);
            let look = || self.api.inspect_image(&tagged);
            match self.repeated("look for the image", DOCKER_LOOK, look).await {
                Ok(_) => return Ok(()),
                Err(DockerError::Daemon { status: Some(404), .. }) => {}
                Err(DockerError::Daemon { status: Some(400), words, .. }) => {
                    return Err(DockerError::Image { image: image.to_owned(), words, blame: Blame::App })
                }
                Err(error) => return Err(error),
            }
        }
        self.pull(request, progress).await
    }

    async fn pull(
        &self,
        request: ImageRequest<'_>,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), DockerError> {
        let image = request.image;
        progress(&format!("pulling image {image}"));
        let options = CreateImageOptions {
            from_image: Some(with_tag(image)),
            platform: request.platform.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let credentials = request.credentials.map(Credentials::for_docker);
        let mut events = std::pin::pin!(self.api.create_image(Some(options), None, credentials));
        let mut thinner = Thinner::new(Instant::now());
        loop {
            let event = match tokio::time::timeout(DOCKER_PULL_SILENCE, events.next()).await {
                Err(_) => return Err(self.slow("go on pulling the image", DOCKER_PULL_SILENCE)),
                Ok(None) => return Ok(()),
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return Err(pull_error(request, self.error("pull", error))),
            };
            if let Some(line) = thinner.line(&event, Instant::now()) {
                progress(&line);
            }
        }
    }
}

/// Docker takes a name without tag or digest for "all tags" in a pull, and Mesos for `latest`.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || image.contains('@') || is_id(image) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// A full image id, which no registry has but the host may.
fn is_id(image: &str) -> bool {
    image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn pull_error(request: ImageRequest<'_>, error: DockerError) -> DockerError {
    match error {
        DockerError::Daemon { status, mut words, .. } => {
            let blame = blame_of_pull(status, &words);
            if request.credentials.is_none() && wants_credentials(&words) {
                words += "; credentials come from .docker/config.json, fetched into the sandbox by a URI of the app, \
                          or from docker.config_file in the agent's config.toml";
            }
            DockerError::Image { image: request.image.to_owned(), words, blame }
        }
        other => other,
    }
}

fn wants_credentials(words: &str) -> bool {
    let lower = words.to_ascii_lowercase();
    ["access denied", "no basic auth credentials", "unauthorized", "authentication required"]
        .iter()
        .any(|phrase| lower.contains(phrase))
}

/// A name that no registry has stays wrong; a registry that cannot be reached may come back.
fn blame_of_pull(status: Option<u16>, words: &str) -> Blame {
    let apps = ["not found", "manifest unknown", "invalid reference", "no matching manifest"];
    let lower = words.to_ascii_lowercase();
    if matches!(status, Some(400 | 404))
        || wants_credentials(words)
        || apps.iter().any(|phrase| lower.contains(phrase))
    {
        Blame::App
    } else {
        Blame::Host
    }
}

/// Turns pull events into few lines.
#[derive(Debug)]
struct Thinner {
    last: Instant,
    /// By layer: done, bytes got, bytes in all.
    layers: HashMap<String, (bool, i64, i64)>,
}

impl Thinner {
    fn new(now: Instant) -> Self {
        Self { last: now, layers: HashMap::new() }
    }

    fn line(&mut self, event: &CreateImageInfo, now: Instant) -> Option<String> {
        let status = event.status.as_deref()?;
        let Some(layer) = event.id.as_deref().filter(|_| !status.starts_with("Pulling from")) else {
            return Some(status.to_owned());
        };
        let entry = self.layers.entry(layer.to_owned()).or_default();
        match status {
            "Pull complete" | "Already exists" => entry.0 = true,
            "Downloading" => {
                let progress = event.progress_detail.clone().unwrap_or_default();
                entry.1 = progress.current.unwrap_or_default();
                entry.2 = progress.total.unwrap_or_default();
            }
            "Download complete" => entry.1 = entry.2,
            _ => {}
        }
        if now.duration_since(self.last) < EVERY {
            return None;
        }
        self.last = now;
        let done = self.layers.values().filter(|layer| layer.0).count();
        let got: i64 = self.layers.values().map(|layer| layer.1).sum();
        let all: i64 = self.layers.values().map(|layer| layer.2).sum();
        let mega = 1_000_000;
        Some(format!("{done} of {} layers, {} of {} MB", self.layers.len(), got / mega, all / mega))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn image_names_are_split_into_repository_and_tag() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("reg:5000/busybox"), "reg:5000/busybox:latest");
        assert_eq!(with_tag("reg:5000/busybox:1"), "reg:5000/busybox:1");
        assert_eq!(with_tag("busybox@sha256:00"), "busybox@sha256:00");
    }

    #[test]
    fn whose_fault_a_failed_pull_is() {
        assert_eq!(blame_of_pull(Some(404), ""), Blame::App);
        assert_eq!(blame_of_pull(None, "manifest for x:1 not found: manifest unknown"), Blame::App);
        let words = "Get \"https://registry-1.docker.io/v2/\": dial tcp: i/o timeout";
        assert_eq!(blame_of_pull(Some(500), words), Blame::Host);
    }

    #[test]
    fn a_big_pull_is_a_few_lines() {
        let start = Instant::now();
        let mut thinner = Thinner::new(start);
        let mut lines = Vec::new();
        let event = |id: Option<&str>, status: &str, current| CreateImageInfo {
            id: id.map(str::to_owned),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(20_000_000) }),
            ..Default::default()
        };
        lines.extend(thinner.line(&event(Some("1.0"), "Pulling from library/x", 0), start));
        for second in 0..20 {
            for layer in ["a", "b"] {
                let now = start + Duration::from_secs(second);
                lines
                    .extend(thinner.line(&event(Some(layer), "Downloading", 1_000_000 * second as i64), now));
            }
        }
        lines.extend(thinner.line(&event(None, "Status: Downloaded newer image", 0), start));
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[1], "0 of 2 layers, 9 of 40 MB");
    }
}
