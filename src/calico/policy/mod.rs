//! What Felix would do with a packet, step by step; no datastore and no kernel.
//!
//! [`world`] is what is decided with, [`read`] brings records into it as Calico's syncer does for Felix, [`rule`] holds a
//! packet against one rule, [`walk`] follows the chain of one endpoint, [`journey`] the way between two ends, [`hosts`] the
//! host endpoints on it, [`hint`]
//! says what would have let a packet through, [`allowed`] lists everything that passes, [`meant`] finds
//! the ends that a word means. Staged policies are no part of
//! it: Felix does not apply them.

mod allowed;
mod flow;
mod hint;
mod hosts;
mod journey;
mod meant;
pub(super) mod read;
mod rule;
mod walk;
pub(super) mod world;

pub use allowed::{AllowedFlow, FlowList};
pub use flow::Flow;
pub use journey::{Explanation, FlowEnd, FlowEndKind, PolicySide};
pub use meant::{MeantEnds, MeantError};
pub(super) use rule::PolicyRule;
pub use walk::{FlowWay, PolicyStep, PolicyVerdict};
pub use world::{HostForward, PolicyEndpoint, PolicyHost, PolicyWorld};

#[cfg(test)]
mod tests;
