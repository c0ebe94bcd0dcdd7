//! Calico's datastore layer against a real, private etcd.

mod cleaning;
mod credentials;
mod failures;
mod harness;
mod launches;
mod proxy;
mod races;
mod replay;
