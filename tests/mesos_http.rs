//! Version 1 of the executor API against captured conversations of a real Mesos agent with its own
//! executors, and our driver against our embedded agent, whole lives, restarts and refusals included.

#[path = "mesos_http/captures.rs"]
mod captures;
#[path = "mesos_http/driver.rs"]
mod driver;
#[path = "mesos_http/fixtures.rs"]
mod fixtures;
mod kit;
#[path = "mesos_http/life.rs"]
mod life;
#[path = "mesos_http/peer.rs"]
mod peer;
#[path = "mesos_http/restarts.rs"]
mod restarts;
#[path = "mesos_http/tls.rs"]
mod tls;
