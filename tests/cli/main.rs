//! `calico-mesos` as people use it: the real program, private daemons, a machine that stays as it was.

mod config;
mod definitions;
mod explain;
mod killed;
#[path = "../kit/mod.rs"]
mod kit;
mod machine;
mod made;
mod node;
mod reload;
mod run;
mod scripts;
mod usage;
mod warnings;

use kit::netlab;
