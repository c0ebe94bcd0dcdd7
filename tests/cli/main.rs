//! `calico-mesos` as people use it: the real program, private daemons, a machine that stays as it was.

mod definitions;
mod machine;
mod made;
#[path = "../netlab/mod.rs"]
mod netlab;
mod node;
mod reload;
mod run;
mod usage;
