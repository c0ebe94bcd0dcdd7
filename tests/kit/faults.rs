//! Faults of private daemons, by their process ids.

use calico_mesos::rig::daemons::{Consul, Dockerd, Etcd};
use nix::sys::signal::{kill, killpg, Signal};
use nix::sys::wait::{waitid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use super::wait::{blocking, LIMIT};

/// A daemon that can hang: its connections stay open, and nothing answers.
pub trait Freeze {
    fn process(&self) -> Pid;

    /// SIGSTOP, and waits until the process has stopped: the signal alone is only on its way.
    fn freeze(&self) {
        kill(self.process(), Signal::SIGSTOP).unwrap();
        becomes(self.process(), WaitPidFlag::WSTOPPED);
    }

    fn thaw(&self) {
        kill(self.process(), Signal::SIGCONT).unwrap();
    }
}

impl Freeze for Etcd {
    fn process(&self) -> Pid {
        number(self.pid()).expect("it runs")
    }
}

impl Freeze for Consul {
    fn process(&self) -> Pid {
        number(self.pid()).expect("it runs")
    }
}

impl Freeze for Dockerd {
    fn process(&self) -> Pid {
        number(self.pid()).expect("it runs")
    }
}

/// SIGKILL for dockerd alone; its containerd runs on.
pub fn kill_dockerd(docker: &Dockerd) {
    crash(number(docker.pid()));
}

/// SIGKILL for the containerd alone.
pub fn kill_containerd(docker: &Dockerd) {
    crash(number(docker.containerd_pid()));
}

/// As when the host loses its power: both daemons and everything that they have started. What a host keeps
/// in memory only is gone as well; [`Dockerd::restart`] is the next boot.
pub fn power_off(docker: &mut Dockerd) {
    docker.end();
    // Beside it lies containerd's configuration, which a host has in /etc.
    for folder in ["containerd/daemon", "netns", "plugins", "runc", "runtime-runc"] {
        // A folder that this release of Docker does not make.
        let _ = std::fs::remove_dir_all(docker.exec_root().join(folder));
    }
}

fn number(pid: Option<u32>) -> Option<Pid> {
    pid.map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()))
}

/// SIGKILL for the daemon's process group, unless it was ended already. The rig reaps the process when it starts or
/// stops the daemon again.
fn crash(process: Option<Pid>) {
    let Some(process) = process else { return };
    killpg(process, Signal::SIGKILL).unwrap();
    becomes(process, WaitPidFlag::WEXITED);
}

/// Waits until a child of this process has stopped or exited, and leaves it to the rig to reap it.
fn becomes(process: Pid, state: WaitPidFlag) {
    let flags = state | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    blocking(LIMIT, format!("process {process} is in the state {state:?}"), || {
        waitid(Id::Pid(process), flags).unwrap() != WaitStatus::StillAlive
    });
}
