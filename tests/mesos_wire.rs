//! The v0 protocol against captured conversations of a real Mesos agent with its stock executor:
//! what was captured is read and written back byte for byte, and the embedded agent, given the same
//! ids, says the same things in the same order.

#[path = "mesos_wire/bytes.rs"]
mod bytes;
#[path = "mesos_wire/captures.rs"]
mod captures;
#[path = "mesos_wire/driver.rs"]
mod driver;
#[path = "mesos_wire/fixtures.rs"]
mod fixtures;
mod kit;
#[path = "mesos_wire/life.rs"]
mod life;
#[path = "mesos_wire/peer.rs"]
mod peer;
#[path = "mesos_wire/restarts.rs"]
mod restarts;
