//! What this host records about a task while it lives: enough to take all of it away, and to restore what others lose.
//!
//! `journal` is the record that a teardown works from; `published` is what Consul and the datastore hold of the task.

pub mod journal;
pub mod published;
