//! The starts that the proxy makes by itself: of containers whose start was refused because something was away. It also
//! looks at Docker's list from time to time, see [`super::looks`].
//!
//! Docker tries a start by a restart policy once. A start that was refused because the proxy, etcd or Felix was away is
//! noted beside the binding, and made again here, with growing pauses, if the container had run before and its policy
//! of now says so. A client whose own start failed knows that, and one that stops the container wants no start: both
//! strike the note.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, Instant};

use super::bindings::{Binding, Bindings};
use super::creates::LeftCreates;
use super::lives::Lives;
use super::looks::Looks;
use crate::config::Config;
use crate::error::chain;
use crate::limits::{DOCKER_INSPECT, START_WITHOUT_GATE};
use crate::workload::{Docker, DockerHost};

/// How often notes are looked for: a look at a few files.
const LOOK: Duration = Duration::from_secs(1);
/// How often Docker is asked which containers are left, and how they are where it checks them.
const COUNT: Duration = Duration::from_secs(10);
const COUNT_CHECKED: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One start may wait for etcd or an address for a minute; the others need not wait for that.
const AT_ONCE: usize = 8;

/// Goes on until it is dropped.
pub(super) async fn keep(
    config: &Config,
    docker: &DockerHost,
    bindings: &Arc<Bindings>,
    lives: &Lives,
    left: &mut LeftCreates,
) {
    let mut due: BTreeMap<String, (Instant, Duration)> = BTreeMap::new();
    let mut counted: Option<Instant> = None;
    let (mut starting, mut starts) = (BTreeSet::new(), JoinSet::new());
    let mut looks = Looks::default();
    loop {
        tokio::select! {
            Some(Ok(id)) = starts.join_next() => {
                let pause = due.get(&id).map_or(FIRST_PAUSE, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
                starting.remove(&id);
                due.insert(id, (Instant::now() + pause, pause));
                continue;
            }
            () = sleep(LOOK) => {}
        }
        if bindings.is_empty() && left.is_empty() {
            continue;
        }
        let refused = bindings.refused();
        due.retain(|id, _| refused.iter().any(|binding| binding.id == *id));
        let now = Instant::now();
        for binding in &refused {
            // Whose start has just been refused may be about to strike the note.
            due.entry(binding.id.clone()).or_insert((now + FIRST_PAUSE, FIRST_PAUSE));
        }
        let turn: Vec<_> = refused
            .into_iter()
            .filter(|binding| due.get(&binding.id).is_some_and(|(at, _)| *at <= now))
            .filter(|binding| !starting.contains(&binding.id))
            .take(AT_ONCE - starting.len())
            .collect();
        let checked =
            bindings.all().iter().any(|binding| binding.checked && lives.sight(&binding.id).is_some());
        let pause = if checked { COUNT_CHECKED } else { COUNT };
        let counts = counted.is_none_or(|at| now.duration_since(at) >= pause);
        if turn.is_empty() && !counts {
            continue;
        }
        let Ok(docker) = Docker::connect_with(docker, config.docker.tls(), "").await else { continue };
        if counts {
            counted = Some(now);
            looks.look(&docker, bindings, lives).await;
            left.take_away(&docker, config, bindings).await;
        }
        for binding in turn {
            starting.insert(binding.id.clone());
            let (docker, bindings) = (docker.clone(), bindings.clone());
            starts.spawn(async move {
                start_again(&docker, &bindings, &binding).await;
                binding.id.clone()
            });
        }
    }
}

async fn start_again(docker: &Docker, bindings: &Bindings, binding: &Binding) {
    let seen = match docker.inspect_once(&binding.id, DOCKER_INSPECT).await {
        Ok(seen) => seen,
        Err(error) => return tracing::debug!("{}", chain(&error)),
    };
    let text: Value = serde_json::from_str(&seen.text).unwrap_or_default();
    let policy = text.pointer("/0/HostConfig/RestartPolicy/Name").and_then(Value::as_str).unwrap_or("no");
    if seen.running || !binding.ran || matches!(policy, "" | "no") {
        return bindings.strike(&binding.id);
    }
    let strikes = bindings.strikes(&binding.id);
    if !bindings.is_refused(&binding.id) {
        return;
    }
    let name = &binding.bound.task_id;
    match docker.start(&binding.id, START_WITHOUT_GATE).await {
        Ok(()) => {
            tracing::info!("{name}: started again, by its restart policy {policy}");
            bindings.strike(&binding.id);
        }
        Err(error) => {
            tracing::warn!("{name}: cannot be started again yet: {}", chain(&error));
            bindings.strike_again(&binding.id, strikes);
        }
    }
}
