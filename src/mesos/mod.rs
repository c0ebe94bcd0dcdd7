//! Everything between us and a Mesos agent, version 0 of the executor API.
//!
//! ```text
//!  argv, environ ─► flags, environment          what the agent told us when it forked us
//!  agent ◄── libprocess::link ◄──┐
//!                                ├─ driver      registration, reconnection, acknowledgements
//!  agent ──► libprocess::server ─┘     │
//!                                      ▼ Event, update()
//!                                    task       (knows what to do about them)
//! ```
//!
//! The messages are in [`messages`] (generated from `messages.proto`). The embedded agent of
//! `crate::agent` uses the same messages and the same transport from the other side.

pub mod driver;
pub mod duration;
pub mod environment;
pub mod flags;
pub mod libprocess;
pub mod messages;
