//! Calico's datastore layer against a real, private etcd.

#[path = "../certificates/mod.rs"]
mod certificates;
mod cleaning;
mod credentials;
mod failures;
mod harness;
mod launches;
mod proxy;
mod races;
mod replay;
mod role;
