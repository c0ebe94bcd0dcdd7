//! The flags that the agent needs, as its operator has to write them. Pure.

use std::path::Path;

use crate::mesos::flags::DOCKER_SOCKET;
use crate::workload::DockerHost;

use super::agents::FoundAgent;

/// Docker first: it takes what has an image, the other one the rest.
const CONTAINERIZERS: &str = "docker,mesos";
const ATTRIBUTE: &str = "calico:true";

/// Lines for a person. `docker`: where Docker is said to be by DOCKER_HOST or config.toml.
pub fn advice(dir: &Path, docker: Option<&DockerHost>, agents: &[FoundAgent]) -> Vec<String> {
    let mut lines = vec![
        "the Mesos agent needs these flags (this program never restarts it):".to_owned(),
        format!("  --launcher_dir={}", dir.display()),
        format!("  --containerizers={CONTAINERIZERS}"),
    ];
    let known = |flag: fn(&FoundAgent) -> Option<&str>| agents.iter().find_map(flag);
    let socket = known(|agent| agent.docker_socket.as_deref()).unwrap_or(DOCKER_SOCKET);
    match docker {
        // The agent itself looks there for containers after a restart, and removes them.
        Some(DockerHost::Unix(path)) if path != Path::new(socket) => {
            lines.push(format!("  --docker_socket={}", path.display()));
        }
        // --docker_socket can only be a path.
        Some(host @ DockerHost::Tcp { .. }) => lines.push(format!(
            "  --executor_environment_variables='{}'",
            serde_json::json!({ "DOCKER_HOST": host.to_string() })
        )),
        Some(DockerHost::Unix(_)) | None => {}
    }
    let attributes = known(|agent| agent.attributes.as_deref());
    if !attributes.is_some_and(|set| set.split(';').any(|one| one == ATTRIBUTE)) {
        lines.extend(attribute(attributes));
    }
    for agent in agents {
        lines.push(match agent.launches_from(dir) {
            true => format!("the running agent (pid {}) uses this launcher folder already", agent.pid),
            false => format!(
                "the running agent (pid {}) does not use this launcher folder yet: restart it with these flags",
                agent.pid
            ),
        });
    }
    lines
}

/// Only for clusters in which some agents have Calico and others have not.
fn attribute(set: Option<&str>) -> Vec<String> {
    let value = match set {
        // A file that only the operator can add a line to.
        Some(file) if file.starts_with('/') || file.starts_with("file://") => {
            return vec![format!("if not every agent of the cluster has Calico, add {ATTRIBUTE} to {file}")]
        }
        Some(others) if !others.is_empty() => format!("{others};{ATTRIBUTE}"),
        _ => ATTRIBUTE.to_owned(),
    };
    vec![
        "and, if not every agent of the cluster has Calico:".to_owned(),
        format!("  --attributes='{value}'    for \"constraints\": [[\"calico\", \"LIKE\", \"true\"]]"),
        "  --reconfiguration_policy=additive    without it an agent that had other attributes refuses to start (Mesos 1.5 or later)"
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(docker: Option<&str>, agents: &[FoundAgent]) -> String {
        let docker = docker.map(|text| DockerHost::parse(text).unwrap());
        advice(Path::new("/launcher"), docker.as_ref(), agents).join("\n")
    }

    #[test]
    fn the_advice_names_dockers_address_where_the_agent_needs_it() {
        for usual in [None, Some("unix:///var/run/docker.sock")] {
            let lines = told(usual, &[]);
            assert!(
                lines.contains("  --launcher_dir=/launcher\n") && !lines.contains("--docker_socket"),
                "{lines}"
            );
            assert!(lines.contains("\n  --containerizers=docker,mesos\n"), "{lines}");
        }
        assert!(told(Some("unix:///run/d.sock"), &[]).contains("\n  --docker_socket=/run/d.sock\n"));
        let agent = FoundAgent { docker_socket: Some("/run/d.sock".into()), ..FoundAgent::default() };
        assert!(!told(Some("unix:///run/d.sock"), &[agent]).contains("--docker_socket"));
        let lines = told(Some("tcp://localhost:2377"), &[]);
        let wanted = r#"--executor_environment_variables='{"DOCKER_HOST":"tcp://localhost:2377"}'"#;
        assert!(lines.contains(wanted), "{lines}");
    }

    #[test]
    fn attributes_are_added_to() {
        let with =
            |text: &str| told(None, &[FoundAgent { attributes: Some(text.into()), ..FoundAgent::default() }]);
        assert!(told(None, &[]).contains("--attributes='calico:true'"));
        assert!(with("rack:2").contains("--attributes='rack:2;calico:true'"));
        assert!(with("/etc/attributes").contains("add calico:true to /etc/attributes"));
        assert!(!with("rack:2;calico:true").contains("--attributes"));
    }

    #[test]
    fn the_agents_that_run() {
        let agent =
            |pid, dir: &str| FoundAgent { pid, launcher_dir: Some(dir.into()), ..FoundAgent::default() };
        let lines = told(None, &[agent(7, "/launcher"), agent(8, "/usr/libexec/mesos")]);
        assert!(lines.contains("(pid 7) uses this launcher folder already"), "{lines}");
        assert!(lines.contains("(pid 8) does not use this launcher folder yet"), "{lines}");
    }
}
