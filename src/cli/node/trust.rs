//! Whether the programs that run as root for every task are safe from everybody else.

use std::path::{Path, PathBuf};

use crate::host::trust::{weakness, WRITABLE};
use crate::rig::daemons::is_static;

#[derive(Debug, thiserror::Error)]
pub enum AgentTrustError {
    /// The agent merges a task's variables into the executor's environment.
    #[error(
        "{} is dynamically linked, so a task's LD_PRELOAD would run in it as root; install the one that `make build` made", .0.display()
    )]
    Dynamic(PathBuf),
}

/// Refuses what a task could take over; returns what other users could, as warnings.
pub fn look_at(programs: &[&Path]) -> Result<Vec<String>, AgentTrustError> {
    if let Some(dynamic) = programs.iter().find(|program| !is_static(program)) {
        return Err(AgentTrustError::Dynamic(dynamic.to_path_buf()));
    }
    let real = programs.iter().filter_map(|program| program.canonicalize().ok());
    let all: Vec<PathBuf> = programs.iter().map(|program| program.to_path_buf()).chain(real).collect();
    let mut paths: Vec<&Path> = all.iter().flat_map(|program| program.ancestors()).collect();
    paths.sort();
    paths.dedup();
    Ok(paths.into_iter().filter_map(warning).collect())
}

fn warning(path: &Path) -> Option<String> {
    let forbidden = if path.is_dir() { 0 } else { WRITABLE };
    // They run as root for every caller.
    let weakness = weakness(path, forbidden, 0).ok()??;
    Some(format!("warning: {weakness}, so that others than root can become root on this host"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_that_others_may_write_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "#!/bin/sh").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let told = || look_at(&[&program, &program]).unwrap();
        mode(&program, 0o755);
        let before = told().len();
        mode(&program, 0o775);
        mode(dir.path(), 0o777);
        let lines = told();
        assert_eq!(lines.len(), before + 2, "{lines:?}");
        assert!(lines.iter().any(|line| line.contains(&format!("{} is writable", program.display()))));
    }

    #[test]
    fn a_dynamic_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, b"\x7fELF...../lib64/ld-linux-x86-64.so.2\0").unwrap();
        let error = look_at(&[&program]).unwrap_err().to_string();
        assert!(error.contains("LD_PRELOAD"), "{error}");
    }
}
