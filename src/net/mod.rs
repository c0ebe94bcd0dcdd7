//! Network namespaces, veth pairs and addresses of containers. Knows the kernel, not Calico.
//!
//! Every namespace is entered only by a fresh thread that dies afterwards ([`netns`]); netlink
//! sockets are opened there and used from outside, because a socket stays in the namespace it was
//! made in. [`plan`] decides without touching anything, [`link`] applies. [`local`] does what Felix
//! does elsewhere, for `dataplane = "local"`; [`forward`] leads ports of the host to a task.

mod connect;
mod conntrack;
mod error;
mod filters;
mod firewall;
pub mod forward;
mod host;
pub mod link;
pub mod local;
mod lock;
mod marker;
mod netfilter;
pub mod netlink;
pub mod netns;
mod nftables;
mod peer;
pub mod plan;
mod program;
pub mod show;
mod sockets;
pub mod sysctl;
mod veth;

pub use connect::{connect, lookup};
pub use error::NetError;
pub use filters::{filters, Filters};
pub use link::{assign, delete_link, exists, has_host_route, mtu, purposes, task_with_route};
pub use netns::Namespace;
pub use veth::{create_veth, delete_veth, enable_ipv6, existing_veth, hardware_address, move_link, Veth};
