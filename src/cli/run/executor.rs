//! Which program serves an app: the drop-in executor, or the custom executor that the app or `--executor` names.

use std::path::{Path, PathBuf};

use crate::cli::programs::{self, ProgramError};
use crate::rig::agent::marathon::App;

/// The name of our own custom executor, wherever an app expects it.
const OURS: &str = "calico-executor";

#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error(
        "the executor '{0}' is not an absolute path: Mesos would look for it in the sandbox, and no URI brings it there; give its absolute path"
    )]
    Relative(String),
    #[error(
        "the executor {0} is not on this machine: install it, or give its path in executor or --executor"
    )]
    Missing(String),
    #[error("the executor {0} is not a file")]
    NotAFile(String),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

pub struct Executor {
    pub program: PathBuf,
    /// What the app wanted and does not get.
    pub replaces: Option<String>,
}

/// With `dev` nothing has to be installed: where our own executor is missing, the app gets the one next to this
/// program.
pub fn choose(app: &mut App, dev: bool) -> Result<Executor, ExecutorError> {
    let Some(named) = app.executor.clone() else {
        return Ok(Executor { program: programs::executor(None)?, replaces: None });
    };
    let path = PathBuf::from(&named);
    if path.is_relative() {
        return Err(ExecutorError::Relative(named));
    }
    match path.metadata() {
        Ok(meta) if meta.is_file() => return Ok(Executor { program: path, replaces: None }),
        Ok(_) => return Err(ExecutorError::NotAFile(named)),
        Err(_) if dev && path.file_name() == Some(OURS.as_ref()) => {}
        Err(_) => return Err(ExecutorError::Missing(named)),
    }
    let program = programs::executor(None)?;
    app.executor = Some(on_a_shell_line(&program).ok_or_else(|| ExecutorError::Missing(named.clone()))?);
    Ok(Executor { program, replaces: Some(named) })
}

/// A path that Marathon's single quotes can hold.
fn on_a_shell_line(path: &Path) -> Option<String> {
    path.to_str().filter(|path| !path.contains('\'')).map(str::to_owned)
}
