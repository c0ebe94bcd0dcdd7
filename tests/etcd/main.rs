//! Calico's datastore layer against a real, private etcd.

mod books;
mod checker;
mod claims;
mod cleaning;
mod credentials;
mod failures;
#[path = "../kit/mod.rs"]
mod kit;
mod launches;
mod logins;
mod overlaps;
mod races;
mod replay;
mod restored;
mod role;
mod usage;

use kit::{certificates, datastore, proxy};
