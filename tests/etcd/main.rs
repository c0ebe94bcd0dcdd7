//! Calico's datastore layer against a real, private etcd.

#[path = "../certificates/mod.rs"]
mod certificates;
mod cleaning;
mod credentials;
mod failures;
mod harness;
mod launches;
#[allow(dead_code, reason = "shared with the fault harness, which uses more of it")]
mod proxy;
mod races;
mod replay;
mod role;
mod usage;
