//! What Calico's own programs make of us: Felix, `calicoctl` and the IPAM plugin beside the real executor.
//!
//! Not part of the ordinary suite. An operator who has Calico's released programs runs it with
//! `make test-peers CALICO_PEERS=<folder>`; the folder holds `calicoctl`, `calico-felix` and
//! `calico-ipam` (the CNI plugin under that name), all of the version that shall be tried. Felix also
//! needs `iptables`, `ipset` and `conntrack`. The test of `status` needs BIRD 1.6, as Calico has it: the package `bird`.

mod commands;
mod dataplane;
mod edits;
mod felix;
#[path = "../kit/mod.rs"]
mod kit;
mod kube;
mod lab;
mod nodes;
mod pools;
mod ports;
mod programs;
mod records;
mod sharing;
mod status;
mod stories;
mod verdicts;
mod waits;

use kit::{datastore, netlab, world};
