//! The Docker API proxy: containers of any client of Docker get Calico addresses by their variables.
//!
//! Pure: [`create`] understands a request for a container, [`show`] what its client is to see of it, both by [`json`],
//! which reads as Docker reads.

pub mod create;
pub mod json;
pub mod show;
