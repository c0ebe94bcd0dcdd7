//! Whether a daemon gives its containers a user namespace of their own.
//!
//! Such a container owns no network namespace that root has made: runc cannot mount /sys in it ("operation not
//! permitted"; seen with 20.10 and `userns-remap`), and it could neither bind a port below 1024 nor set an interface
//! up. `--userns=host` for one container would help, and would take away what the administrator has set.

use bytes::Bytes;
use serde_json::Value;

use super::docker::Docker;
use super::error::DockerError;
use crate::limits::DOCKER_INFO;

/// Why containers of a daemon have a user namespace of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespace {
    /// `userns-remap` in its daemon.json.
    Remapped,
    /// The daemon itself runs without root.
    Rootless,
}

impl Docker {
    /// The user namespace of this daemon's containers; `None` where that is the host's.
    pub async fn user_namespace(&self) -> Result<Option<UserNamespace>, DockerError> {
        Ok(of_info(&self.info("report its security options").await?))
    }

    /// What the daemon says of itself. `doing`: what is asked for, for messages.
    pub(super) async fn info(&self, doing: &'static str) -> Result<Bytes, DockerError> {
        self.get("/info", doing, DOCKER_INFO).await
    }
}

fn of_info(body: &[u8]) -> Option<UserNamespace> {
    let info: Value = serde_json::from_slice(body).ok()?;
    let options = info.get("SecurityOptions")?.as_array()?;
    // `name=seccomp,profile=default`
    let has = |name: &str| {
        let names =
            options.iter().filter_map(|option| option.as_str()?.split(',').next()?.strip_prefix("name="));
        names.into_iter().any(|other| other == name)
    };
    match (has("rootless"), has("userns")) {
        (true, _) => Some(UserNamespace::Rootless),
        (false, true) => Some(UserNamespace::Remapped),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_tell_the_user_namespace() {
        let of = |options: &str| of_info(format!("{{\"SecurityOptions\":{options}}}").as_bytes());
        // As 20.10 with userns-remap says it.
        let remapped = r#"["name=seccomp,profile=default","name=userns"]"#;
        assert_eq!(of(remapped), Some(UserNamespace::Remapped));
        assert_eq!(of(r#"["name=rootless","name=cgroupns"]"#), Some(UserNamespace::Rootless));
        assert_eq!(of(r#"["name=seccomp,profile=userns","name=cgroupns"]"#), None);
        assert_eq!(of("null"), None);
        assert_eq!(of_info(b"no JSON"), None);
    }
}
