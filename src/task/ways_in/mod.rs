//! The ways in: how a task of Mesos reaches a life, and how its life is reported to Mesos.
//!
//! ```text
//!  drop_in   one Docker task per process   ──┐
//!                                            ├──► executor ──► life
//!  custom    tasks of any framework's own  ──┘       │
//!                                                    └─ status   changes and outcomes as status updates
//! ```

pub mod custom;
pub mod drop_in;
mod executor;
pub mod status;
