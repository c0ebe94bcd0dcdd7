//! Private daemons: a real etcd, dockerd and Consul of our own, on free ports in a temporary folder.
//!
//! `calico-mesos run --dev`, the demo and the tests start them; nothing of the machine's own daemons
//! is touched or read. Each daemon is ready when its `start` returns, ends with its value (also when
//! that is merely dropped), and is ended by its process id, never by name:
//!
//! ```text
//!  start ──► ready ──► stop()     SIGTERM, then SIGKILL; containers, shims, mounts and cgroups removed
//!              │  └──► kill()     SIGKILL, as in a crash; restart() brings it back on the same port
//!              └─────► drop       SIGKILL and the same sweep
//! ```
//!
//! The tests use the same daemons. `kill`, `restart` (of one of Docker's two daemons too), `shut_down` and `reload` are
//! there for them alone: they need what this module has started. Faults that need a process id only are in `tests/kit`.
//!
//! Should our own process be killed, the kernel ends the daemons (`setpriv --pdeathsig`); what even that leaves behind,
//! such as containerd, is found by the next [`Stack`], see [`sweep`]. [`Stack`] puts all three together with a
//! `config.toml` that names them.

mod consul;
mod containerd;
mod dockerd;
mod etcd;
mod http;
mod image;
mod members;
mod pool;
mod ports;
mod process;
mod stack;
pub mod sweep;

use std::path::PathBuf;
use std::process::ExitStatus;

pub use consul::{find_consul, Consul, ConsulOptions};
pub use dockerd::{Dockerd, DockerdOptions, Network};
pub use etcd::{Etcd, EtcdOptions};
pub use image::{import_busybox, is_static};
pub use members::members;
pub use pool::{free_pool, overlapping};
pub use ports::free_port;
pub use stack::{Stack, StackOptions};

/// What can go wrong with a private daemon.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} was not found; {hint}")]
    Missing { program: &'static str, hint: &'static str },
    #[error("{name} ended at once ({status}); its log {log} ends with: {tail}")]
    Exited { name: &'static str, status: ExitStatus, log: PathBuf, tail: String },
    #[error("{name} was not ready after {seconds} s; its log {log} ends with: {tail}")]
    NotReady { name: &'static str, seconds: u64, log: PathBuf, tail: String },
    #[error("{what} was answered with {status}: {body}")]
    Refused { what: String, status: u16, body: String },
    #[error("{0}")]
    Unusable(String),
}

impl DevError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Another program took the port between our look and the daemon's bind: worth another try.
    fn port_was_taken(&self) -> bool {
        matches!(self, Self::Exited { tail, .. } if tail.contains("address already in use"))
    }
}
