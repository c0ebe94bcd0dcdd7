//! Records what happened, for operators: the audit trail, the figures for Prometheus, and the names of a life's steps.

pub mod audit;
pub mod figures;
pub mod steps;
pub mod trail;
