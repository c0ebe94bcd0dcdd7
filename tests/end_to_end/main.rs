//! The main job from end to end: the embedded agent launches real executors on real daemons.

mod adopted;
mod agents;
mod audit;
mod bad_input;
#[path = "../certificates/mod.rs"]
mod certificates;
mod cleaners;
mod custom;
mod destroyed;
mod faults;
mod gc;
mod health;
mod hostile;
mod launch;
mod logs;
mod names;
#[path = "../netlab/mod.rs"]
mod netlab;
mod policy;
mod ports;
mod restored;
mod secrets;
mod silence;
mod stock;
mod world;
