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
//! `task` is the only module that knows all the others; `mesos`, `calico`, `net`, `workload` and
//! `consul` are neighbours that never import each other. Below them lie `names`, `error`, `files`,
//! `processes`, `config`, `limits` (of every wait), `logging`, `lock`, `gate`, `trust`, `privileges`, `resolve` (host
//! names), `tls` (certificates) and `dial` (connections and requests); above them `agent` (the embedded Mesos agent),
//! `dev` (private daemons) and `cli`. `runtime` stands apart: Docker runs it for every container. `tests/architecture.rs`
//! checks this.
//! Start reading at [`task`].

pub mod agent;
#[cfg(test)]
mod any_json;
pub mod calico;
pub mod cli;
pub mod config;
pub mod consul;
pub mod dev;
pub mod dial;
pub mod error;
pub mod files;
pub mod gate;
pub mod limits;
pub mod lock;
pub mod logging;
pub mod mesos;
pub mod names;
pub mod net;
pub mod privileges;
pub mod processes;
pub mod resolve;
pub mod runtime;
pub mod task;
pub mod tls;
pub mod trust;
pub mod workload;
