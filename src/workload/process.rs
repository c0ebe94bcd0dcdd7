//! A container's init process, watched and, where Docker does not do it any more, killed without Docker.
//!
//! By a pidfd: a number alone could be another process's by the time it is used.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

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
    pub fn open(pid: i32) -> Self {
        let fd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { path: Path::new("/proc").join(pid.to_string()), fd }
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
        // An error cannot tell anything about the process: then Docker alone is asked.
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

    /// SIGKILL, if it is of the container with this id: its cgroup is named after it. Tells whether it was sent.
    pub fn kill_in(&self, container: &str) -> bool {
        let Some(fd) = &self.fd else { return false };
        let cgroup = fs::read_to_string(self.path.join("cgroup")).unwrap_or_default();
        !container.is_empty() && cgroup.contains(container) && pidfd_send_signal(fd, Signal::KILL).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_seen_and_strangers_are_left_alone() {
        let mut child = tokio::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = HostProcess::open(i32::try_from(child.id().unwrap()).unwrap());
        assert!(!process.kill_in("no cgroup of this name"));
        assert!(!process.kill_in(""));
        assert!(tokio::time::timeout(Duration::from_millis(50), process.gone()).await.is_err());
        child.kill().await.unwrap();
        process.gone().await;
        assert!(!process.network().exists());
    }
}
