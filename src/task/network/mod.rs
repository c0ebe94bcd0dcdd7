//! The Calico side of a launch, in typed stages: a stage holds what exists by then.
//!
//! ```text
//!  request ─ choose ────► Choice ──────┐      ports: are they free?
//!             datastore read           ├─ wire ──► Wired ──► hosts (gate opens)
//!          ─ interface ─► Interface ───┘   │ ├─ holds     the addresses, on this host
//!             namespace, veth              │ ├─ ports     forwarded, and kept so
//!                                          │ └─ felix     waits for its rules
//!                                          endpoint, address (one transaction);
//!                                          addresses inside, host routes
//! ```
//!
//! `folder` is where the runtime finds all of it. Nothing here undoes a stage: the journal names what may exist, and
//! `teardown` takes it away.

mod choose;
pub(super) mod felix;
mod folder;
pub mod holds;
mod hosts;
mod interface;
pub(super) mod ports;
mod wire;

use std::net::IpAddr;

pub(super) use choose::{choose, Choice, EarlyLogin};
pub use folder::{listen, namespace, publish};
pub use hosts::{hosts_lines, write_hosts};
pub use interface::purpose;
pub(super) use interface::{hardware_address, make_interface, renew_interface, Interface};
pub(super) use wire::rewire;
pub use wire::{Timing, Unwired, Wired};

/// `192.168.17.64, fd00::1`
pub fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
