//! A task's life: what happens between the agent's RunTask and the last trace of it.
//!
//! ```text
//!  drop_in │ custom ──► executor ──► spec, request      what was asked for (pure)
//!                          │ link: Order, Command, Change, Outcome
//!                 ┌────────┘
//!                 ▼
//!   life ──► calico_life ──► journal     ownership: a lock that dies with us
//!                 │────────► network     read, namespace, veth │ write, addresses
//!                 │            holds     which task of this host has which address
//!                 │────────► launch      docker start beside all that, and the gate
//!                 │────────► services    Consul, in the background
//!                 │────────► health      checks, as long as it runs
//!                 └────────► teardown    the way back, from the journal alone  ◄── gc
//! ```
//!
//! What happened is written down by `audit`, and `figures` are counted for Prometheus. Both lives use `work`, the
//! workload's stages. Start with `life`; then `calico_life` tells what Calico adds.

pub mod audit;
mod calico_life;
pub mod custom;
pub mod docker_host;
pub mod drop_in;
mod executor;
mod felix;
pub mod figures;
pub mod gate;
pub mod gc;
pub mod health;
pub mod holds;
pub mod journal;
mod launch;
mod life;
mod link;
mod making;
pub mod network;
mod ports;
pub mod remapped;
pub mod request;
pub mod retry;
mod services;
pub mod spec;
pub mod status;
pub mod steps;
pub mod teardown;
pub mod told;
mod work;
