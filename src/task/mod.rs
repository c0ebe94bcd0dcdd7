//! A task's life: what happens between the agent's RunTask and the last trace of it.
//!
//! ```text
//!  ways_in ──► request                  what the task requests (pure)
//!     │ channel: Order, Kill, LifeChange, Outcome
//!     ▼
//!   life ──► record      the journal: ownership, by a lock that ends with the process
//!     │────► network     address, namespace, interface, host ports; waits for Felix
//!     │────► work        the workload: create, start, stop beside all that, and the gate
//!     │────► health      checks, as long as it runs
//!     └────► teardown    everything is taken away, from the journal alone  ◄── cleaner
//! ```
//!
//! `report` records what happened: the audit trail, and figures for Prometheus. `story` reads journal and trail back for
//! operators. Start with [`life`].

pub mod channel;
pub mod cleaner;
pub mod health;
pub mod life;
pub mod network;
pub mod record;
pub mod report;
pub mod request;
pub mod retry;
pub mod story;
pub mod teardown;
pub mod ways_in;
pub mod work;
