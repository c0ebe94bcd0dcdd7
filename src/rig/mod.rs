//! The local-run rig: what runs an app definition on one machine, without a cluster.
//!
//! `agent` is an embedded Mesos agent, which launches executors as a real one does; `daemons` starts a private etcd,
//! dockerd and Consul. `calico-mesos run`, the demo, the tests and the benchmarks use both; no executor links them.

pub mod agent;
pub mod daemons;
