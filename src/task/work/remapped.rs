//! Refuses Calico tasks on a Docker daemon whose containers cannot use the namespace that is made for them.
//!
//! A daemon is queried once in its life. Its answer lies in `<run>/docker/<address>`, with the processes that the
//! daemon may be, and is valid as long as those are the same. (Behind a socket of systemd's the peer is pid 1, and
//! behind TCP it is unknown: then all dockerds that this host had at the time of the query count, for as long as all of
//! them live. Where none can be seen, the daemon is queried each time.)

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::config::Config;
use crate::error::{chain, Code, Failure};
use crate::host::files;
use crate::host::processes::{boot_id, pids, Stat};
use crate::limits::DOCKER_LISTENER;
use crate::workload::{Docker, DockerHost, UserNamespace};

use crate::task::request::docker_host::Chosen;

const DAEMON: &str = "dockerd";

/// The answer of a daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    /// `boot pid start-time` of each process that it may be.
    daemons: Vec<String>,
    /// The inode of the daemon's socket; 0 behind TCP.
    #[serde(default)]
    socket: u64,
    remapped: bool,
    rootless: bool,
}

/// An error when containers of this daemon have a user namespace of their own. A daemon that does not answer is left
/// to those who create the container.
pub async fn refuse(config: &Config, chosen: &Chosen) -> Result<(), Failure> {
    let file = file(config, &chosen.host);
    let socket = inode(&chosen.host);
    let known = read(&file).filter(|said| said.socket == socket);
    let daemons = daemons(&chosen.host, known.as_ref()).await;
    let known = known.filter(|said| !daemons.is_empty() && said.daemons == daemons);
    let said = match known {
        Some(said) => said,
        None => match ask(chosen).await {
            Ok(seen) => {
                let remapped = seen == Some(UserNamespace::Remapped);
                let said =
                    Said { daemons, socket, remapped, rootless: seen == Some(UserNamespace::Rootless) };
                write(&file, &said);
                said
            }
            Err(why) => {
                tracing::debug!("{why}");
                return Ok(());
            }
        },
    };
    let (how, change) = match (said.remapped, said.rootless) {
        (true, _) => ("userns-remap in its daemon.json", "without userns-remap"),
        (_, true) => ("it runs without root", "that runs as root"),
        (false, false) => return Ok(()),
    };
    Err(Failure::new(
        Code::DockerUnsuitable,
        format!(
            "Docker at {} ({}) gives its containers a user namespace of their own ({how}), in which a Calico interface does not work; run Calico tasks with a dockerd {change}",
            chosen.host, chosen.source
        ),
    ))
}

async fn ask(chosen: &Chosen) -> Result<Option<UserNamespace>, String> {
    let docker = Docker::connect_with(&chosen.host, chosen.tls.clone(), &chosen.source.to_string())
        .await
        .map_err(|error| chain(&error))?;
    docker.user_namespace().await.map_err(|error| chain(&error))
}

fn inode(host: &DockerHost) -> u64 {
    match host {
        DockerHost::Unix(path) => fs::metadata(path).map_or(0, |meta| meta.ino()),
        DockerHost::Tcp { .. } => 0,
    }
}

fn identity(pid: i32) -> Option<String> {
    Some(format!("{} {pid} {}", boot_id(), Stat::of(pid)?.start_time()?))
}

/// The process of this identity is there.
fn lives(daemon: &String) -> bool {
    let pid = daemon.split(' ').nth(1).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| is_dockerd(pid) && identity(pid).as_ref() == Some(daemon))
}

/// The process behind the daemon's socket; else those that are known, if all live; else every dockerd of this host,
/// for which every process has to be looked at.
async fn daemons(host: &DockerHost, known: Option<&Said>) -> Vec<String> {
    if let DockerHost::Unix(path) = host {
        if let Some(pid) = listener(path).await.filter(|pid| is_dockerd(*pid)) {
            return identity(pid).into_iter().collect();
        }
    }
    if let Some(said) = known.filter(|said| said.daemons.iter().all(lives)) {
        return said.daemons.clone();
    }
    let all = move || pids().filter(|pid| is_dockerd(*pid)).filter_map(identity).collect();
    tokio::task::spawn_blocking(all).await.unwrap_or_default()
}

async fn listener(socket: &Path) -> Option<i32> {
    let stream = tokio::time::timeout(DOCKER_LISTENER, UnixStream::connect(socket)).await.ok()?.ok()?;
    stream.peer_cred().ok()?.pid()
}

fn is_dockerd(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == DAEMON)
}

fn file(config: &Config, host: &DockerHost) -> PathBuf {
    let legal = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    config.paths.run.join("docker").join(host.to_string().chars().map(legal).collect::<String>())
}

fn read(file: &Path) -> Option<Said> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Without it the next launch asks again.
fn write(file: &Path, said: &Said) {
    let written = (|| {
        files::make_private(file.parent().unwrap_or(file))?;
        files::replace(file, |new| Ok(serde_json::to_writer(new, said)?))
    })();
    if let Err(error) = written {
        tracing::debug!("cannot write {}: {error}", file.display());
    }
}
