//! A container's init process, watched and, where Docker does not do it any more, killed without Docker.
//!
//! By a pidfd: a number alone could be another process's by the time it is used.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use crate::host::processes::{all_are_seen, command_line, pids};

/// How often a process is looked for where the kernel has no pidfd.
const POLL: Duration = Duration::from_millis(500);

/// One process of this host.
#[derive(Debug)]
pub struct HostProcess {
    /// Also its `/proc` folder.
    path: PathBuf,
    /// `None`: a kernel before 5.3, or the process is gone already.
    fd: Option<OwnedFd>,
}

impl HostProcess {
    /// A process that is certainly the one meant: a child of this one.
    pub fn child(pid: i32) -> Self {
        let fd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { path: Path::new("/proc").join(pid.to_string()), fd }
    }

    /// The process that Docker reports as a container's first. `None` when a process of that number is not in this
    /// container, whose cgroup is named after its id: it has ended, Docker runs on another machine, or this
    /// program in a pid namespace of its own.
    pub fn of_container(pid: i32, id: &str) -> Option<Self> {
        let process = Self::child(pid);
        let cgroup = fs::read_to_string(process.path.join("cgroup")).ok()?;
        (!id.is_empty() && cgroup.contains(id)).then_some(process)
    }

    /// A container's first process, looked for without Docker: by its cgroup, and by being the first of a pid
    /// namespace. `None` also for containers that share the host's.
    pub fn search(id: &str) -> Option<Self> {
        // How deep the namespace is that the process is the first of.
        let first_at = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
            let numbers: Vec<&str> = numbers.split_whitespace().collect();
            (numbers.len() > 1 && numbers.last() == Some(&"1")).then_some((numbers.len(), pid))
        };
        let of_container = |(depth, pid)| Some((depth, Self::of_container(pid, id)?));
        // Containers that live within it have such processes, too.
        let found = pids().filter_map(first_at).filter_map(of_container).min_by_key(|(depth, _)| *depth);
        found.map(|(_, process)| process)
    }

    /// Whether nothing lives in a container of this host, whose cgroup is named after its id. False also where that
    /// cannot be seen.
    pub fn none_in(id: &str) -> bool {
        !id.is_empty() && all_are_seen() && !pids().any(|pid| Self::is_in(pid, id))
    }

    /// Whether the process lives in the container, whose cgroup is named after its id.
    pub fn is_in(pid: i32, id: &str) -> bool {
        // What has gone meanwhile does not live.
        !id.is_empty()
            && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(id))
    }

    /// containerd's shim of a container, which has its id on the command line.
    pub fn shim(id: &str) -> Option<Self> {
        let is_its_shim = |pid: &i32| {
            let Some(words) = command_line(*pid) else { return false };
            let program = words[0].rsplit('/').next().unwrap_or_default();
            program.starts_with("containerd-shim") && words[1..].iter().any(|word| word == id)
        };
        // A command line ends with an empty word.
        if id.is_empty() {
            return None;
        }
        // Looked at once more: by now the number could be another process's.
        let opened = |pid: i32| (pid, Self::child(pid));
        pids().filter(is_its_shim).map(opened).find(|(pid, _)| is_its_shim(pid)).map(|(_, shim)| shim)
    }

    /// Its working directory; none when it has gone.
    pub fn folder(&self) -> Option<PathBuf> {
        fs::read_link(self.path.join("cwd")).ok()
    }

    /// The network namespace it lives in.
    pub fn network(&self) -> PathBuf {
        self.path.join("ns/net")
    }

    /// Returns when it is gone.
    pub async fn gone(&self) {
        let Some(fd) = &self.fd else { return self.poll_gone().await };
        // A pidfd becomes readable when its process ends. Nothing is ever read, so tokio's pipe serves as
        // the one type that waits for any descriptor without unsafe code.
        let pipe = fd.try_clone().and_then(tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked);
        // An error shows nothing about the process: then Docker alone is asked.
        match pipe {
            Ok(pipe) if pipe.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    async fn poll_gone(&self) {
        while self.path.exists() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends SIGKILL; returns whether it was sent.
    pub fn kill(&self) -> bool {
        self.fd.as_ref().is_some_and(|fd| pidfd_send_signal(fd, Signal::KILL).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_seen_and_strangers_are_not_taken_for_a_container() {
        let mut child = tokio::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        assert!(HostProcess::of_container(pid, "no cgroup of this name").is_none());
        assert!(HostProcess::of_container(pid, "").is_none());
        assert_eq!(HostProcess::none_in("no cgroup of this name"), all_are_seen());
        assert!(!HostProcess::none_in("/"), "every cgroup's path has one");
        let process = HostProcess::child(pid);
        assert!(tokio::time::timeout(Duration::from_millis(50), process.gone()).await.is_err());
        assert!(process.kill());
        process.gone().await;
        child.wait().await.unwrap();
        assert!(!process.network().exists() && !process.kill());
    }
}
