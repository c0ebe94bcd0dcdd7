//! The main job from end to end: the embedded agent launches real executors on real daemons.

mod adopted;
mod agents;
mod audit;
mod bad_input;
mod cleaners;
mod custom;
mod destroyed;
mod faults;
mod gc;
mod health;
mod hostile;
#[path = "../kit/mod.rs"]
mod kit;
mod launch;
mod logs;
mod names;
mod policy;
mod ports;
mod restored;
mod secrets;
mod silence;
mod stock;

use kit::{certificates, world};
