//! The operator's commands as people call them: the real program against a private etcd full of records, and against
//! real tasks.

mod addresses;
mod bgp;
mod completion;
mod desk;
mod deviations;
mod front;
#[path = "../kit/mod.rs"]
mod kit;
mod nodes;
mod pools;
mod tasks;

use kit::{datastore, world};
