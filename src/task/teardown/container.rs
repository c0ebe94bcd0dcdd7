//! The end of a container in Docker's view, and of what lies below Docker.
//!
//! A containerd that is killed loses events: Docker then reports a container as running whose process is gone, or drops
//! one whose shim and cgroups stay. A kill makes Docker look again; the shim and the cgroups are ended here. None of
//! them holds an address, so a living executor does this after its terminal update.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::chain;
use crate::limits::DOCKER_INSPECT;
use crate::workload::{end_remains, Docker, DockerError, HostProcess};

use super::{stop_container, Report, Workload};
use crate::task::record::journal::{Backing, Record};
use crate::task::request::is_named_by_us;

/// How long Docker may take to see an end that containerd has just reported.
const SEEN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

/// Ends a container that Docker reports as running, whether its process lives or not.
pub(super) async fn end(docker: &Docker, id: &str, name: &str) -> Result<(), String> {
    let killed = docker.kill(id).await;
    if let Err(error @ (DockerError::Away { .. } | DockerError::Slow { .. })) = &killed {
        return Err(chain(error));
    }
    if !runs(docker, id).await? {
        return Ok(());
    }
    // containerd reports the end of a shim's container itself.
    if let Some(shim) = HostProcess::shim(id).filter(HostProcess::kill) {
        tracing::warn!("ended the shim of {name}, which Docker could not kill");
        shim.gone().await;
        let begun = Instant::now();
        while begun.elapsed() < SEEN {
            tokio::time::sleep(POLL).await;
            if !runs(docker, id).await? {
                return Ok(());
            }
        }
    }
    let why = killed.err().map_or_else(|| "a kill changed nothing".to_owned(), |error| chain(&error));
    Err(format!(
        "Docker reports {name} as running and cannot end it: {why}; if that stays so with containerd running, \
         `systemctl restart docker` ends it (without live-restore: all containers of this host)"
    ))
}

async fn runs(docker: &Docker, id: &str) -> Result<bool, String> {
    match docker.inspect_once(id, DOCKER_INSPECT).await {
        Ok(container) => Ok(container.running),
        Err(DockerError::NoContainer { .. }) => Ok(false),
        Err(error) => Err(chain(&error)),
    }
}

/// What nothing waits for: the end as Docker has to see it, a container that no agent removes, and what lies below
/// Docker. Where something else is left already, a cleaner does all of it.
/// `limit` is for all of Docker's answers together.
pub async fn settle(record: &Record, config: &Config, limit: Duration, report: &mut Report) {
    let named_by_us =
        matches!(&record.backing, Backing::Container { name, .. } if is_named_by_us(name, &record.container));
    let to_remove = named_by_us && !report.container;
    if report.complete() && (report.unconfirmed || to_remove) {
        let workload = if report.unconfirmed { Workload::Unknown } else { Workload::Exited };
        if let Err(error) = stop_container(record, config, workload, limit, report).await {
            report.errors.push(format!("container: {error}"));
        }
    }
    if !report.complete() || !report.look_below {
        return;
    }
    let links = links(config, record);
    let linked = links.iter().filter_map(|link| Some(link.file_name()?.to_str()?.to_owned()));
    for id in linked.chain(report.docker_id.clone()) {
        if let Err(error) = end_remains(&id).await {
            report.note("container", &error);
        }
    }
    if report.complete() {
        match links.iter().try_for_each(fs::remove_file) {
            Ok(()) => report.folder |= !links.is_empty(),
            Err(error) => report.note("volatile folder", &error),
        }
    }
}

/// The links by which calico-runc finds the task's folder, each named after a container of Docker's.
pub(super) fn links(config: &Config, record: &Record) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(config.paths.run.join("containers")) else { return Vec::new() };
    let leads_here = |link: &PathBuf| {
        let target = fs::read_link(link).unwrap_or_default();
        target.file_name().is_some_and(|name| name == record.container.as_str())
    };
    entries.flatten().map(|entry| entry.path()).filter(leads_here).collect()
}
