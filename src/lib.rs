//! Project Calico networking for tasks of Apache Mesos and Marathon.
//!
//! One task's way through the code:
//!
//! ```text
//!  Mesos agent                                                      Consul
//!      │ RunTask or LAUNCH, Kill                                      ▲ <app>-direct
//!      ▼                                                              │
//!  mesos ──► task ──► calico    address, endpoint, profile (etcd)     consul
//!              │────► net       namespace, veth, routes, ports        ▲
//!              │────► workload  a Docker container, or a command      │
//!              │────► gate ◄──  runtime (calico-runc, called by Docker)
//!              └──────────────────────────────────────────────────────┘
//! ```
//!
//! `task` is the only module that imports all the others; `mesos`, `calico`, `net`, `workload` and
//! `consul` are neighbours that never import each other. Below them lie `names`, `error`, `config`,
//! `host` (files, locks, processes, privileges), `limits` (of every wait), `logging`, `gate`, `tls` (certificates) and
//! `dial` (connections and requests); above them `proxy` (of Docker's API), `rig` (an embedded Mesos agent and private daemons, for local runs)
//! and `cli`. `runtime` stands apart: Docker runs it for every container. `tests/architecture.rs`
//! checks this.
//! Start reading at [`task`].

#[cfg(test)]
mod any_json;
pub mod calico;
pub mod cli;
pub mod config;
pub mod consul;
pub mod dial;
pub mod error;
pub mod gate;
pub mod host;
pub mod limits;
pub mod logging;
pub mod mesos;
pub mod names;
pub mod net;
pub mod proxy;
pub mod rig;
pub mod runtime;
pub mod task;
pub mod tls;
pub mod workload;
