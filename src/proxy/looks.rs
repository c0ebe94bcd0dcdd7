//! What Docker's list of containers shows about bound ones: which are gone, how healthy the others are, and which run
//! without Docker's knowledge.
//!
//! A dockerd that is killed while a container stands at the gate leaves it to its containerd, which lets it run.
//! The next dockerd calls it "created" or "exited", cannot stop it, and refuses to start it (`id already in use`) as long
//! as it lives. Docker has the last word on what runs, so such a container is ended here.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::bindings::{Binding, Bindings};
use super::lives::Lives;
use super::wiring::forget;
use crate::limits::DOCKER_INSPECT;
use crate::workload::{ContainerState, Docker, DockerError, Listed};

/// How long a container has to run without Docker's knowledge: at a start, Docker notes it a moment after its runtime.
const UNKNOWN: Duration = Duration::from_secs(10);

/// What the looks before have shown.
#[derive(Default)]
pub(super) struct Looks {
    /// Containers that run and that Docker does not count as running: which of its runs it is, and since when.
    unknown: BTreeMap<String, (u64, Instant)>,
}

impl Looks {
    /// Forgets containers that are gone, ends those that Docker has lost, and passes the health of the others on.
    pub async fn look(&mut self, docker: &Docker, bindings: &Bindings, lives: &Lives) {
        // Before the list: what is bound meanwhile is not in it.
        let known = bindings.all();
        let Ok(listed) = docker.containers().await else { return };
        self.unknown.retain(|id, _| listed.iter().any(|container| container.id == *id));
        for binding in known {
            if let Some(container) = listed.iter().find(|container| container.id == binding.id) {
                if let Some(healthy) = container.healthy {
                    lives.health(&binding.id, healthy);
                }
                if self.is_lost(container, lives) && !runs(docker, &binding.id).await {
                    end(&binding, bindings, lives);
                }
                continue;
            }
            // The list leaves out what it cannot understand.
            if let Err(DockerError::NoContainer { .. }) =
                docker.inspect_once(&binding.id, DOCKER_INSPECT).await
            {
                tracing::info!("{}: the container is gone", binding.bound.task_id);
                forget(bindings, lives, &binding.id);
            }
        }
    }

    /// Whether one and the same run of it has been unknown to Docker for long enough.
    fn is_lost(&mut self, container: &Listed, lives: &Lives) -> bool {
        let runs = lives.sight(&container.id).map(|sight| sight.run);
        let stands = matches!(container.state, ContainerState::NeverStarted | ContainerState::Exited);
        let Some(run) = runs.filter(|_| stands) else {
            self.unknown.remove(&container.id);
            return false;
        };
        let entry = self.unknown.entry(container.id.clone()).or_insert_with(|| (run, Instant::now()));
        if entry.0 != run {
            *entry = (run, Instant::now());
        }
        entry.1.elapsed() >= UNKNOWN
    }
}

/// Docker's last word; true where it does not answer.
async fn runs(docker: &Docker, id: &str) -> bool {
    docker.inspect_once(id, DOCKER_INSPECT).await.map_or(true, |seen| seen.running)
}

/// Its processes go with the end of the linger time. Its client, or its restart policy, wanted it to run.
fn end(binding: &Binding, bindings: &Bindings, lives: &Lives) {
    let why = "Docker does not know that the container runs: dockerd died while it was started";
    tracing::warn!("{}: {why}; it is ended after the linger time", binding.bound.task_id);
    lives.ended(&binding.id);
    bindings.note_refused(&binding.id, why);
}
