//! Marathon's part: an app definition in, the TaskInfo that Marathon would send out.
//!
//! Both network schemas are read: `container.docker.network` and `ipAddress` (up to 1.4), `networks`
//! and `container.portMappings` (from 1.5 on). Fields that only steer Marathon itself (constraints,
//! back-off, upgrade strategy) are left alone; what is left out and would be missed is in [`App::notes`]; what would
//! change the task and cannot be done on one machine is refused with a sentence.

mod container;
mod environment;
mod executor;
mod fields;
mod health;
mod model;
mod networks;
mod parse;
mod source;
mod strings;
mod task;

pub use self::model::{App, AppInstance};
pub use self::parse::AppChoice;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("the app definition is not valid JSON")]
    Json(#[source] serde_json::Error),
    #[error("the app definition is not valid {0}: save it as UTF-8")]
    Encoding(&'static str),
    #[error("this is not an app definition: a JSON object with an id is expected")]
    NotAnApp,
    #[error("this file holds {kind}: choose one of them with --app ID ({ids})")]
    Several { kind: &'static str, ids: String },
    #[error("this file has no app {wanted}; it has: {ids}")]
    NoSuchApp { wanted: String, ids: String },
    #[error(
        "this is a pod, which Mesos runs without Docker: only apps can be run here, such as one with container.docker \
         for each of its containers"
    )]
    Pod,
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
