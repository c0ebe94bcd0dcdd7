//! Seccomp profiles: the docker CLI reads the file that `security-opt` names and sends the profile itself.
//!
//! A file named by a task is read as root. That is no way to its content: the profile goes to Docker
//! alone, and an error reports only that it is not JSON.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use serde_json::Value;

use super::credentials::read_small;
use super::error::DockerError;

/// Names that Docker knows, and profiles that stand in the option itself.
fn is_known(profile: &str) -> bool {
    matches!(profile, "builtin" | "unconfined") || profile.trim_start().starts_with('{')
}

/// The options with the content of each file in the place of its name.
pub(super) fn with_profiles(options: &[String]) -> Result<Vec<String>, DockerError> {
    options.iter().map(|option| with_profile(option)).collect()
}

fn with_profile(option: &str) -> Result<String, DockerError> {
    let profile = option.strip_prefix("seccomp=").or(option.strip_prefix("seccomp:"));
    let Some(path) = profile.filter(|profile| !is_known(profile)) else { return Ok(option.to_owned()) };
    let failed = |source| DockerError::Profile { path: path.to_owned(), source };
    let open = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let text = open.and_then(read_small).map_err(failed)?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|_| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not JSON")))?;
    Ok(format!("seccomp={json}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn files_are_read_and_names_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.json");
        std::fs::write(&path, "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n").unwrap();
        let option = |text: &str| with_profile(text);
        let of_file = format!("seccomp={}", path.display());
        assert_eq!(option(&of_file).unwrap(), r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#);
        for same in ["seccomp=unconfined", "seccomp={\"x\":1}", "apparmor=/x", "no-new-privileges"] {
            assert_eq!(option(same).unwrap(), same);
        }
        std::fs::write(&path, "secret").unwrap();
        for bad in [of_file.as_str(), "seccomp=/nowhere/x", "seccomp=/dev/zero"] {
            let failure = option(bad).unwrap_err().failure();
            assert!(failure.code == Code::Parameter && !failure.message.contains("secret"), "{failure}");
        }
    }
}
