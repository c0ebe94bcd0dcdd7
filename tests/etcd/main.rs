//! Calico's datastore layer against a real, private etcd.

mod books;
#[path = "../certificates/mod.rs"]
mod certificates;
mod checker;
mod claims;
mod cleaning;
mod credentials;
mod failures;
mod harness;
mod launches;
mod logins;
mod overlaps;
#[allow(dead_code, reason = "shared with the fault harness, which uses more of it")]
mod proxy;
mod races;
mod replay;
mod restored;
mod role;
mod usage;
