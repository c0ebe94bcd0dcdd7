//! What Calico's own programs make of us: Felix, `calicoctl` and the IPAM plugin beside the real executor.
//!
//! Not part of the ordinary suite. An operator who has Calico's released programs runs it with
//! `make test-peers CALICO_PEERS=<folder>`; the folder holds `calicoctl`, `calico-felix` and
//! `calico-ipam` (the CNI plugin under that name), all of the version that shall be tried. Felix also
//! needs `iptables`, `ipset` and `conntrack`.

#[path = "../etcd/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the datastore layer")]
mod harness;
#[path = "../netlab/mod.rs"]
mod netlab;
#[path = "../end_to_end/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the executor")]
mod world;

mod dataplane;
mod edits;
mod felix;
mod kube;
mod lab;
mod ports;
mod programs;
mod records;
mod sharing;
mod waits;
