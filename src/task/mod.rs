//! A task's life: what happens between the agent's RunTask and the last trace of it.
//!
//! ```text
//!  drop_in ──► spec, request      what was asked for (pure)
//!     │
//!     ▼
//!   life ──► calico_life ──► journal     ownership: a lock that dies with us
//!                 │────────► network     read, namespace, veth │ write, addresses
//!                 │────────► launch      docker start beside all that, and the gate
//!                 │────────► services    Consul, in the background
//!                 └────────► teardown    the way back, from the journal alone  ◄── gc
//! ```
//!
//! Start with [`life`]; then [`calico_life`](self) tells what Calico adds.

mod calico_life;
pub mod docker_host;
pub mod drop_in;
pub mod gate;
pub mod gc;
pub mod journal;
mod launch;
pub mod life;
mod making;
pub mod network;
pub mod request;
pub mod retry;
mod services;
pub mod spec;
pub mod status;
pub mod teardown;
