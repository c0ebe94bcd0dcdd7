//! Marathon's part: an app definition in, the TaskInfo that Marathon would send out.
//!
//! Both network schemas are read: `container.docker.network` and `ipAddress` (up to 1.4), `networks`
//! and `container.portMappings` (from 1.5 on). Fields that only steer Marathon itself (constraints,
//! back-off, upgrade strategy, its own health checks) are left alone; what would change the task and
//! cannot be done on one machine is refused with a sentence.

mod container;
mod environment;
mod executor;
mod fields;
mod health;
mod model;
mod networks;
mod parse;
mod task;

pub use self::model::{App, Instance};

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("the app definition is not valid JSON")]
    Json(#[source] serde_json::Error),
    #[error("this is no app definition: a JSON object with an id is expected")]
    NotAnApp,
    #[error("this file holds {0}: give one app per file")]
    Several(&'static str),
    #[error("app definition: {field} {problem}")]
    Field { field: String, problem: String },
}

impl AppError {
    fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { field: field.into(), problem: problem.into() }
    }
}

#[cfg(test)]
mod tests;
