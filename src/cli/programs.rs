//! The programs that are installed next to this one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("cannot find the path of this program")]
    Here(#[source] std::io::Error),
    #[error("{path} is missing: install {name} next to calico-mesos (cargo builds both)")]
    Missing { name: &'static str, path: PathBuf },
    #[error("{path} is not an executable file")]
    NotAProgram { path: PathBuf },
}

/// The executor: the one that was named, else the one next to this program.
pub fn executor(named: Option<&Path>) -> Result<PathBuf, ProgramError> {
    match named {
        Some(path) => check(path, "calico-executor"),
        None => check(&neighbour("calico-executor")?, "calico-executor"),
    }
}

/// The OCI runtime next to this program.
pub fn runtime() -> Result<PathBuf, ProgramError> {
    check(&neighbour("calico-runc")?, "calico-runc")
}

fn neighbour(name: &str) -> Result<PathBuf, ProgramError> {
    let here = std::env::current_exe().map_err(ProgramError::Here)?;
    Ok(here.with_file_name(name))
}

/// Absolute, because the executor starts in another folder.
fn check(path: &Path, name: &'static str) -> Result<PathBuf, ProgramError> {
    let Ok(path) = path.canonicalize() else {
        return Err(ProgramError::Missing { name, path: path.into() });
    };
    match path.metadata() {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Ok(path),
        _ => Err(ProgramError::NotAProgram { path }),
    }
}
