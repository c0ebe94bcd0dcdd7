//! [`ContainerSpec`] in the Engine's own words.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding as DockerPort, ResourcesUlimits};

use super::spec::ContainerSpec;

/// The body of `POST /containers/create`.
///
/// Never a terminal, never stdin, never removed by Docker itself: Mesos agents older than 1.10 inspect
/// the container once more after its end, and remove it when they no longer need it.
pub(super) fn create_body(spec: &ContainerSpec) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        env: some_list(&spec.environment),
        labels: Some(spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        hostname: spec.hostname.clone(),
        exposed_ports: some_list(&spec.ports.iter().map(container_port).collect::<Vec<_>>()),
        volumes: some_list(&spec.volumes),
        attach_stdin: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(false),
        tty: Some(false),
        host_config: Some(host_config(spec)),
        ..Default::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let network = if spec.network.is_empty() { "bridge" } else { &spec.network };
    HostConfig {
        auto_remove: Some(false),
        binds: some_list(&spec.binds),
        volume_driver: spec.volume_driver.clone(),
        network_mode: Some(network.to_owned()),
        port_bindings: (!spec.ports.is_empty()).then(|| port_map(spec)),
        cpu_shares: spec.cpu_shares,
        cpu_quota: spec.cpu_quota,
        memory: spec.memory,
        memory_reservation: spec.memory_reservation,
        oom_score_adj: spec.oom_score_adj,
        privileged: Some(spec.privileged),
        dns: some_list(&spec.dns),
        dns_search: some_list(&spec.dns_search),
        dns_options: some_list(&spec.dns_options),
        extra_hosts: some_list(&spec.extra_hosts),
        cap_add: some_list(&spec.cap_add),
        cap_drop: some_list(&spec.cap_drop),
        ulimits: (!spec.ulimits.is_empty()).then(|| ulimits(spec)),
        runtime: spec.runtime.clone(),
        ..Default::default()
    }
}

fn some_list(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn container_port(port: &super::spec::PortBinding) -> String {
    format!("{}/{}", port.container_port, port.protocol)
}

/// One container port may be reached through several host ports.
fn port_map(spec: &ContainerSpec) -> HashMap<String, Option<Vec<DockerPort>>> {
    let mut map: HashMap<String, Option<Vec<DockerPort>>> = HashMap::new();
    for port in &spec.ports {
        let binding = DockerPort { host_ip: None, host_port: Some(port.host_port.to_string()) };
        map.entry(container_port(port)).or_default().get_or_insert_default().push(binding);
    }
    map
}

fn ulimits(spec: &ContainerSpec) -> Vec<ResourcesUlimits> {
    let ulimit = |limit: &super::spec::Ulimit| ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    spec.ulimits.iter().map(ulimit).collect()
}

#[cfg(test)]
mod tests {
    use super::super::spec::{PortBinding, Ulimit};
    use super::*;

    #[test]
    fn the_network_is_always_named_and_nothing_is_removed_by_docker() {
        let body = create_body(&ContainerSpec { image: "busybox".into(), ..Default::default() });
        let json = serde_json::to_value(&body).unwrap();
        assert_eq!(json["HostConfig"]["NetworkMode"], "bridge");
        assert_eq!(json["HostConfig"]["AutoRemove"], false);
        assert_eq!(json["Tty"], false);
        assert!(json.get("Entrypoint").is_none() && json.get("Cmd").is_none() && json.get("Env").is_none());
    }

    #[test]
    fn ports_and_ulimits() {
        let port = |host_port| PortBinding { host_port, container_port: 80, protocol: "tcp".into() };
        let json = serde_json::to_value(create_body(&ContainerSpec {
            ports: vec![port(31000), port(31001)],
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 10, hard: -1 }],
            ..Default::default()
        }))
        .unwrap();
        assert_eq!(json["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
        let bound: Vec<_> = json["HostConfig"]["PortBindings"]["80/tcp"]
            .as_array()
            .unwrap()
            .iter()
            .map(|binding| binding["HostPort"].as_str().unwrap())
            .collect();
        assert_eq!(bound, ["31000", "31001"]);
        assert_eq!(
            json["HostConfig"]["Ulimits"][0],
            serde_json::json!({"Name":"nofile","Soft":10,"Hard":-1})
        );
    }
}
