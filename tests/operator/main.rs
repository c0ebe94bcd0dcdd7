//! The operator's commands as people call them: the real program against a private etcd full of records, and against
//! real tasks.

mod addresses;
mod bgp;
mod completion;
mod damage;
mod desk;
mod deviations;
mod diags;
mod endpoints;
mod explain;
mod front;
mod init;
#[path = "../kit/mod.rs"]
mod kit;
mod nodes;
mod policies;
mod pools;
mod profiles;
mod scale;
mod shapes;
mod status;
mod tasks;
mod usage;

use kit::{datastore, netlab, world};
