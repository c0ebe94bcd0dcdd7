//! The test kit: what more than one test program needs. Each includes all of it with one line
//! (`#[path = "../kit/mod.rs"] mod kit;`).
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`world`] | a small cluster on real daemons, with the embedded agent and the real executor |
//! | [`datastore`] | a private etcd with Calico's keys, for tests of the datastore layer alone |
//! | [`wait`] | waiting for a condition |
//! | [`netlab`] | namespaces and interfaces in a private network |
//! | [`faults`] | what can happen to a private daemon |
//! | [`proxy`] | a proxy before etcd that loses or holds back what passes |
//! | [`docker_proxy`] | the Docker API proxy before a world's dockerd |
//! | [`steps`] | a listener that holds lives up at a step |
//! | [`certificates`] | a certificate authority |

#![allow(dead_code, reason = "a program uses a part; tests/architecture.rs finds what no program uses")]

pub mod certificates;
pub mod datastore;
pub mod docker_proxy;
pub mod faults;
pub mod netlab;
pub mod proxy;
pub mod steps;
pub mod wait;
pub mod world;
