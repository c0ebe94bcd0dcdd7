//! What a run says about an app before it launches it: what it leaves out, and what would surprise.

use crate::mesos::messages::container_info::docker_info::Network;
use crate::mesos::messages::TaskInfo;
use crate::rig::agent::fetch;
use crate::rig::agent::marathon::App;

use super::summary::is_calico;

/// One sentence each. The instances differ in nothing that matters here; `dev` is whether Docker is a private one.
pub fn of(app: &App, instances: &[TaskInfo], dev: bool) -> Vec<String> {
    let mut notes = app.notes.clone();
    let Some(info) = instances.first() else { return notes };
    if let (Some(port), 2..) = (app.fixed_ports().first(), instances.len()) {
        notes.push(format!(
            "the app names the host port {port}, which only one instance can have on a machine; use --instances 1"
        ));
    }
    let left_out = |uri| Some(format!("{} is not fetched: {}", fetch::shown(uri), fetch::obstacle(uri)?));
    notes.extend(fetch::uris(info).filter_map(left_out));
    let docker = info.container.as_ref().and_then(|container| container.docker.as_ref());
    let network = docker.filter(|_| dev && !is_calico(info)).map(|docker| docker.network());
    match network {
        Some(Network::Bridge) => notes.push(
            "the private Docker of --dev has no bridge: the task gets the interface lo alone, and its port mappings \
             lead nowhere; without --dev it runs on this machine's own Docker, with CALICO_IP it gets an address"
                .to_owned(),
        ),
        Some(Network::User) => notes.push(
            "the private Docker of --dev has none of Docker's networks, so the launch fails; without --dev the app runs \
             on this machine's own Docker, with CALICO_IP or on the network calico it gets an address"
                .to_owned(),
        ),
        Some(Network::Host | Network::None) | None => {}
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::agent::marathon::AppInstance;

    fn notes(rest: &str, dev: bool) -> Vec<String> {
        notes_of(rest, dev, 1)
    }

    fn notes_of(rest: &str, dev: bool, instances: usize) -> Vec<String> {
        let app = App::parse(&format!(
            r#"{{"id": "/a", "container": {{"type": "DOCKER", "docker": {{"image": "x"}}}}, {rest}}}"#
        ))
        .unwrap();
        let info = || app.task_info(&AppInstance::new("h", vec![31000; app.free_ports()]));
        of(&app, &std::iter::repeat_with(info).take(instances).collect::<Vec<_>>(), dev)
    }

    #[test]
    fn uris_that_are_not_fetched_are_named_with_the_reason() {
        let told = notes(
            r#""uris": ["hdfs://user:secret@h/a.tgz", "/no/such/docker.tar.gz", "/etc/hostname"]"#,
            true,
        );
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("hdfs://…@h/a.tgz is not fetched: only local files"), "{told:?}");
        assert!(told[1].contains("/no/such/docker.tar.gz is not fetched: no such file"), "{told:?}");
    }

    #[test]
    fn networks_that_dev_does_not_have_are_named() {
        let bridge = r#""networks": [{"mode": "container/bridge"}]"#;
        let told = notes(bridge, true);
        assert!(told.len() == 1 && told[0].contains("no bridge"), "{told:?}");
        assert_eq!(notes(bridge, false), [""; 0]);
        let named = r#""networks": [{"name": "dcos"}]"#;
        let told = notes(named, true);
        assert!(told.len() == 1 && told[0].contains("none of Docker's networks"), "{told:?}");
        assert_eq!(notes(&named.replace("dcos", "calico"), true), [""; 0]);
        assert_eq!(notes(&format!(r#"{bridge}, "env": {{"CALICO_IP": "auto"}}"#), true), [""; 0]);
    }

    #[test]
    fn a_host_port_that_two_instances_would_share_is_named() {
        let fixed = r#""requirePorts": true, "ports": [8080]"#;
        assert_eq!(notes_of(fixed, true, 1), [""; 0]);
        let told = notes_of(fixed, true, 2);
        assert!(told.len() == 1 && told[0].contains("host port 8080"), "{told:?}");
        assert_eq!(notes_of(r#""ports": [8080]"#, true, 2), [""; 0]);
    }
}
