//! Everything between us and a Mesos agent, versions 0 and 1 of the executor API.
//!
//! ```text
//!  argv, environ ─► flags, environment          what the agent passed when it forked us
//!  agent ◄── libprocess::link ◄──┐
//!                                ├─ driver      version 0: registration, reconnection, acknowledgements
//!  agent ──► libprocess::server ─┘     │
//!                                      │ ┌──── http ◄─► agent      version 1: subscription, updates
//!                                      ▼ ▼ Event, update()
//!                                    task       (decides what to do about them, in either version)
//! ```
//!
//! The messages are in [`messages`] (generated from `messages.proto`). The embedded agent of
//! `crate::rig::agent` uses the same messages and the same transport from the other side.

pub mod driver;
pub mod duration;
pub mod environment;
pub mod flags;
pub mod http;
pub mod libprocess;
pub mod messages;

#[cfg(test)]
mod tests;
