//! The workload: one Docker container, from image to exit code, or one `command`.
//!
//! The order in which a task uses it (each step is one call, so that a network can be built between
//! `create` and `start`):
//!
//! ```text
//! Docker::connect ─► ensure_image ─► create ─► wait, attach ─► start ─► inspect
//!                                      │         │      │                          │ pid
//!                                      │         │      └► OutputStream::pump      ▼
//!                                      │         └───────► Waiting::exit ──► Exit
//!                                      └► stop, kill, remove, exec
//! ```
//!
//! bollard is named in this folder only. Each request has a connection of its own (`transport`), so
//! that a running task holds exactly two: the one that waits and the one that streams the output.
//! Every call but wait, attach, start and pull has a time limit; a daemon that hangs is asked again.

mod accounts;
mod body;
mod command;
mod credentials;
mod docker;
mod error;
mod exec;
mod facts;
mod frames;
mod host;
mod image;
pub mod init;
mod inspect;
mod logs;
mod namespaces;
mod process;
mod profile;
mod remains;
mod resolvers;
mod runtimes;
mod session;
#[cfg(test)]
mod silent_tests;
mod spec;
mod transport;
mod users;
mod wait;

pub use command::{Blank, CommandError, CommandOutput, CommandSpec, Held, Process, OWN_PROGRAM};
pub use credentials::{find as find_credentials, Credentials};
pub use docker::Docker;
pub use error::DockerError;
pub use exec::Running;
pub use host::{DockerHost, InvalidDockerHost};
pub use image::ImageRequest;
pub use inspect::Inspected;
pub use logs::{OutputStream, Sink};
pub use namespaces::UserNamespace;
pub use process::HostProcess;
pub use remains::{end_remains, RemainsError};
pub use resolvers::{fallback as resolver_fallback, of_host as resolvers_of_host};
pub use spec::{
    ContainerSpec, Device, DeviceRequest, HealthSpec, Mount, MountKind, NetworkEndpoint, PortBinding,
    Propagation, Published, Recursion, Throttle, Throttled, Ulimit,
};
pub use users::{ContainerState, Listed};
pub use wait::{Exit, Waiting};
