//! A task's life: what happens between the agent's RunTask and the last trace of it.
//!
//! ```text
//!  drop_in │ custom ──► executor ──► spec, request      what was asked for (pure)
//!                          │ link: Order, Kill, Change, Outcome
//!                 ┌────────┘
//!                 ▼
//!   life ──► journal     ownership: a lock that dies with us
//!     │────► network     read, namespace, veth │ write, addresses
//!     │        holds     which task of this host has which address
//!     │────► work        docker create, start, stop beside all that, and the gate
//!     │────► services    Consul, in the background
//!     │────► health      checks, as long as it runs
//!     └────► teardown    everything is taken away, from the journal alone  ◄── gc
//! ```
//!
//! What happened is written down by `audit`, and `figures` are counted for Prometheus. Start with `life`.

pub mod audit;
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
pub mod life;
pub mod link;
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
