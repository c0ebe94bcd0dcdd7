//! What can go wrong with namespaces and links: each variant says what this layer was doing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::forward::Taken;
use crate::error::{Code, Failure};
use crate::host::lock::LockError;

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot {action} network namespace {}", path.display())]
    Namespace {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a network namespace", .0.display())]
    NotANamespace(PathBuf),
    #[error("{} is this host's own network namespace", .0.display())]
    HostNamespace(PathBuf),
    #[error("cannot run a thread for a network namespace")]
    Thread(#[source] io::Error),
    #[error("cannot connect to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    #[error("cannot {action} interface {link}")]
    Link {
        action: &'static str,
        link: String,
        #[source]
        source: Box<rtnetlink::Error>,
    },
    #[error("interface {link} exists already and does not belong to this task: {why}; delete it if it is not needed (ip link delete {link})")]
    LinkTaken { link: String, why: String },
    #[error("cannot look up the host route of {address}")]
    Route {
        address: IpAddr,
        #[source]
        source: Box<rtnetlink::Error>,
    },
    #[error("the host route of {address} leads to {link}, which is another task's interface")]
    RouteTaken { address: IpAddr, link: String },
    #[error("interface {0} does not exist")]
    NoLink(String),
    #[error("interface {link} keeps hardware address {found} instead of {wanted}")]
    HardwareAddress { link: String, wanted: String, found: String },
    #[error("cannot read the {what} of the kernel, which kept changing")]
    Interrupted { what: &'static str },
    #[error("cannot set {key} to {value}")]
    Sysctl {
        key: String,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("processes {0:?} survive SIGKILL in the container's network namespace")]
    Survivors(Vec<i32>),
    #[error("cannot {action} {}", path.display())]
    State {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("another program holds {} for more than {seconds} s", path.display())]
    Locked { path: PathBuf, seconds: u64 },
    #[error("cannot run '{command}'")]
    Program {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    PortTaken(Taken),
    #[error("'{command}' failed: {output}")]
    Firewall { command: String, output: String },
}

impl From<&NetError> for Failure {
    /// All of these are the host's: another attempt, or another host, may succeed.
    fn from(error: &NetError) -> Self {
        Failure::new(Code::Net, crate::error::chain(error))
    }
}
