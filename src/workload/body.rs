//! [`ContainerSpec`] in the Engine's own words. No other file names bollard's types for it.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig,
    HostConfig, HostConfigCgroupnsModeEnum as Cgroupns, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum as Spread, MountImageOptions, MountTmpfsOptions, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkingConfig, PortBinding as DockerPort,
    ResourcesUlimits, ThrottleDevice,
};
use serde::Serialize;

use super::spec::{self, ContainerSpec, MountKind, Propagation, Recursion, Throttled};

/// bollard's body, and the one field that its types have no more.
#[derive(Serialize)]
pub(super) struct Body {
    #[serde(flatten)]
    body: ContainerCreateBody,
    /// Where daemons before API 1.44 look for it; later ones look in the endpoint.
    #[serde(rename = "MacAddress", skip_serializing_if = "Option::is_none")]
    mac_address: Option<String>,
}

/// The body of `POST /containers/create`.
///
/// Never a terminal, never stdin, never removed by Docker itself: Mesos agents older than 1.10 inspect
/// the container once more after its end, and remove it when they no longer need it.
pub(super) fn create_body(spec: &ContainerSpec, api: (u32, u32)) -> Body {
    let published = spec.published.iter().map(|port| port.container_port.clone());
    let mut exposed: Vec<String> = spec.ports.iter().map(container_port).chain(published).collect();
    exposed.extend(spec.exposed.iter().cloned());
    exposed.sort();
    exposed.dedup();
    let body = ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        env: some_list(&spec.environment),
        labels: Some(spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_timeout,
        healthcheck: health(&spec.health),
        exposed_ports: some_list(&exposed),
        volumes: some_list(&spec.volumes),
        attach_stdin: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(false),
        tty: Some(false),
        host_config: Some(host_config(spec)),
        networking_config: networking(spec),
        ..Default::default()
    };
    let old = api < (1, 44);
    let mac_address = spec.endpoints.first().filter(|_| old).and_then(|first| first.mac_address.clone());
    Body { body, mac_address }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let network = if spec.network.is_empty() { "bridge" } else { &spec.network };
    let log = spec.log_driver.is_some() || !spec.log_options.is_empty();
    HostConfig {
        auto_remove: Some(false),
        annotations: some_map(&spec.annotations),
        init: spec.init,
        runtime: spec.runtime.clone(),
        binds: some_list(&spec.binds),
        volume_driver: spec.volume_driver.clone(),
        volumes_from: some_list(&spec.volumes_from),
        mounts: some(spec.mounts.iter().map(mount)),
        tmpfs: some_map(&spec.tmpfs),
        storage_opt: some_map(&spec.storage_options),
        shm_size: spec.shm_size,
        readonly_rootfs: Some(spec.read_only),
        log_config: log.then(|| HostConfigLogConfig {
            typ: spec.log_driver.clone(),
            config: some_map(&spec.log_options),
        }),
        network_mode: Some(network.to_owned()),
        port_bindings: port_map(spec),
        publish_all_ports: Some(spec.publish_all),
        dns: some_list(&spec.dns),
        dns_search: some_list(&spec.dns_search),
        dns_options: some_list(&spec.dns_options),
        extra_hosts: some_list(&spec.extra_hosts),
        privileged: Some(spec.privileged),
        cap_add: some_list(&spec.cap_add),
        cap_drop: some_list(&spec.cap_drop),
        group_add: some_list(&spec.group_add),
        security_opt: some_list(&spec.security_options),
        // An empty list is not the same as none: it takes Docker's own away.
        masked_paths: spec.unmask_system_paths.then(Vec::new),
        readonly_paths: spec.unmask_system_paths.then(Vec::new),
        pid_mode: spec.pid_mode.clone(),
        ipc_mode: spec.ipc_mode.clone(),
        uts_mode: spec.uts_mode.clone(),
        userns_mode: spec.userns_mode.clone(),
        cgroupns_mode: spec.cgroupns_mode.as_deref().map(|mode| match mode {
            "host" => Cgroupns::HOST,
            _ => Cgroupns::PRIVATE,
        }),
        ..resources(spec)
    }
}

/// The part of a HostConfig that limits.
fn resources(spec: &ContainerSpec) -> HostConfig {
    HostConfig {
        cpu_shares: spec.cpu_shares,
        cpu_period: spec.cpu_period,
        cpu_quota: spec.cpu_quota,
        cpu_realtime_period: spec.cpu_realtime_period,
        cpu_realtime_runtime: spec.cpu_realtime_runtime,
        nano_cpus: spec.nano_cpus,
        cpuset_cpus: spec.cpuset_cpus.clone(),
        cpuset_mems: spec.cpuset_mems.clone(),
        memory: spec.memory,
        memory_reservation: spec.memory_reservation,
        memory_swap: spec.memory_swap,
        memory_swappiness: spec.memory_swappiness,
        oom_score_adj: spec.oom_score_adj,
        oom_kill_disable: spec.oom_kill_disable,
        pids_limit: spec.pids_limit,
        ulimits: some(spec.ulimits.iter().map(|limit| ResourcesUlimits {
            name: Some(limit.name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        })),
        blkio_device_read_bps: throttles(spec, Throttled::ReadBytes),
        blkio_device_write_bps: throttles(spec, Throttled::WriteBytes),
        blkio_device_read_iops: throttles(spec, Throttled::ReadOperations),
        blkio_device_write_iops: throttles(spec, Throttled::WriteOperations),
        devices: some(spec.devices.iter().map(|device| DeviceMapping {
            path_on_host: Some(device.host.clone()),
            path_in_container: Some(device.container.clone()),
            cgroup_permissions: Some(device.permissions.clone()),
        })),
        device_requests: some(spec.device_requests.iter().map(|request| DeviceRequest {
            driver: Some(request.driver.clone()),
            count: Some(request.count),
            device_ids: some_list(&request.ids),
            capabilities: (!request.capabilities.is_empty()).then(|| vec![request.capabilities.clone()]),
            options: some_map(&request.options),
        })),
        device_cgroup_rules: some_list(&spec.device_cgroup_rules),
        cgroup_parent: spec.cgroup_parent.clone(),
        sysctls: some_map(&spec.sysctls),
        ..Default::default()
    }
}

fn some<T>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    Some(items.collect()).filter(|list: &Vec<T>| !list.is_empty())
}

fn some_list(list: &[String]) -> Option<Vec<String>> {
    some(list.iter().cloned())
}

fn some_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn some_number(number: i64) -> Option<i64> {
    Some(number).filter(|number| *number != 0)
}

fn container_port(port: &spec::PortBinding) -> String {
    format!("{}/{}", port.container_port, port.protocol)
}

/// One container port may be reached through several host ports.
fn port_map(spec: &ContainerSpec) -> Option<HashMap<String, Option<Vec<DockerPort>>>> {
    let mapped = spec.ports.iter().map(|port| (container_port(port), None, port.host_port.to_string()));
    let published = spec.published.iter().map(|port| {
        let host_ip = Some(port.host_ip.clone()).filter(|ip| !ip.is_empty());
        (port.container_port.clone(), host_ip, port.host_port.clone())
    });
    let mut map: HashMap<String, Option<Vec<DockerPort>>> = HashMap::new();
    for (container_port, host_ip, host_port) in mapped.chain(published) {
        let binding = DockerPort { host_ip, host_port: Some(host_port) };
        map.entry(container_port).or_default().get_or_insert_default().push(binding);
    }
    Some(map).filter(|map| !map.is_empty())
}

fn throttles(spec: &ContainerSpec, what: Throttled) -> Option<Vec<ThrottleDevice>> {
    let of_kind = spec.throttles.iter().filter(|throttle| throttle.what == what);
    some(
        of_kind
            .map(|throttle| ThrottleDevice { path: Some(throttle.path.clone()), rate: Some(throttle.rate) }),
    )
}

fn health(health: &spec::HealthSpec) -> Option<HealthConfig> {
    if health.disabled {
        return Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() });
    }
    health.is_set().then(|| HealthConfig {
        test: health.command.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
        interval: some_number(health.interval),
        timeout: some_number(health.timeout),
        start_period: some_number(health.start_period),
        start_interval: some_number(health.start_interval),
        retries: some_number(health.retries),
    })
}

/// Said only where there is something to say: a daemon before API 1.44 takes no more than one network.
fn networking(spec: &ContainerSpec) -> Option<NetworkingConfig> {
    let plain = |end: &spec::NetworkEndpoint| {
        *end == spec::NetworkEndpoint { network: end.network.clone(), ..Default::default() }
    };
    if spec.endpoints.len() < 2 && spec.endpoints.iter().all(plain) {
        return None;
    }
    let endpoints = spec.endpoints.iter().map(|end| (end.network.clone(), endpoint(end)));
    Some(NetworkingConfig { endpoints_config: Some(endpoints.collect()) })
}

fn endpoint(end: &spec::NetworkEndpoint) -> EndpointSettings {
    let addressed = end.ipv4.is_some() || end.ipv6.is_some() || !end.link_local.is_empty();
    EndpointSettings {
        aliases: some_list(&end.aliases),
        mac_address: end.mac_address.clone(),
        driver_opts: some_map(&end.driver_options),
        gw_priority: some_number(end.gateway_priority),
        ipam_config: addressed.then(|| EndpointIpamConfig {
            ipv4_address: end.ipv4.clone(),
            ipv6_address: end.ipv6.clone(),
            link_local_ips: some_list(&end.link_local),
        }),
        ..Default::default()
    }
}

fn mount(mount: &spec::Mount) -> Mount {
    let of = |kind| mount.kind == kind;
    Mount {
        typ: Some(match mount.kind {
            MountKind::Volume => MountType::VOLUME,
            MountKind::Bind => MountType::BIND,
            MountKind::Tmpfs => MountType::TMPFS,
            MountKind::Image => MountType::IMAGE,
        }),
        source: Some(mount.source.clone()).filter(|source| !source.is_empty()),
        target: Some(mount.target.clone()),
        read_only: mount.read_only.then_some(true),
        consistency: mount.consistency.clone(),
        bind_options: of(MountKind::Bind).then(|| bind_options(mount)).and_then(unless_default),
        volume_options: of(MountKind::Volume).then(|| volume_options(mount)).and_then(unless_default),
        tmpfs_options: unless_default(MountTmpfsOptions {
            size_bytes: mount.tmpfs_size,
            mode: mount.tmpfs_mode,
            options: None,
        }),
        image_options: of(MountKind::Image)
            .then(|| MountImageOptions { subpath: mount.subpath.clone() })
            .and_then(unless_default),
    }
}

fn unless_default<T: Default + PartialEq>(options: T) -> Option<T> {
    (options != T::default()).then_some(options)
}

fn volume_options(mount: &spec::Mount) -> MountVolumeOptions {
    let driver = MountVolumeOptionsDriverConfig {
        name: mount.driver.clone(),
        options: some_map(&mount.driver_options),
    };
    MountVolumeOptions {
        no_copy: mount.no_copy.then_some(true),
        labels: some_map(&mount.labels),
        subpath: mount.subpath.clone(),
        driver_config: unless_default(driver),
    }
}

fn bind_options(mount: &spec::Mount) -> MountBindOptions {
    let recursion = |wanted| (mount.recursion == wanted).then_some(true);
    MountBindOptions {
        propagation: mount.propagation.map(|propagation| match propagation {
            Propagation::Private => Spread::PRIVATE,
            Propagation::RPrivate => Spread::RPRIVATE,
            Propagation::Shared => Spread::SHARED,
            Propagation::RShared => Spread::RSHARED,
            Propagation::Slave => Spread::SLAVE,
            Propagation::RSlave => Spread::RSLAVE,
        }),
        non_recursive: recursion(Recursion::Disabled),
        read_only_non_recursive: recursion(Recursion::Writable),
        read_only_force_recursive: recursion(Recursion::ReadOnly),
        create_mountpoint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::{NetworkEndpoint, PortBinding, Ulimit};
    use super::*;

    fn json(spec: &ContainerSpec, api: (u32, u32)) -> serde_json::Value {
        serde_json::to_value(create_body(spec, api)).unwrap()
    }

    #[test]
    fn the_network_is_always_named_and_nothing_is_removed_by_docker() {
        let json = json(&ContainerSpec { image: "busybox".into(), ..Default::default() }, (1, 41));
        assert_eq!(json["HostConfig"]["NetworkMode"], "bridge");
        assert_eq!(json["HostConfig"]["AutoRemove"], false);
        assert_eq!(json["Tty"], false);
        for absent in ["Entrypoint", "Cmd", "Env", "Healthcheck", "NetworkingConfig", "MacAddress"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn ports_and_ulimits() {
        let port = |host_port| PortBinding { host_port, container_port: 80, protocol: "tcp".into() };
        let json = json(
            &ContainerSpec {
                ports: vec![port(31000), port(31001)],
                ulimits: vec![Ulimit { name: "nofile".into(), soft: 10, hard: -1 }],
                ..Default::default()
            },
            (1, 41),
        );
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

    #[test]
    fn an_old_daemon_reads_the_mac_address_elsewhere() {
        let mac_address = Some("02:42:ac:11:00:02".to_owned());
        let first = NetworkEndpoint { network: "mine".into(), mac_address, ..Default::default() };
        let spec = ContainerSpec { network: "mine".into(), endpoints: vec![first], ..Default::default() };
        let (old, new) = (json(&spec, (1, 41)), json(&spec, (1, 44)));
        assert_eq!(old["MacAddress"], "02:42:ac:11:00:02");
        assert!(new.get("MacAddress").is_none());
        for json in [old, new] {
            let endpoint = &json["NetworkingConfig"]["EndpointsConfig"]["mine"];
            assert_eq!(endpoint["MacAddress"], "02:42:ac:11:00:02");
        }
    }

    #[test]
    fn one_plain_network_is_left_to_its_name() {
        let plain = |network: &str| NetworkEndpoint { network: network.into(), ..Default::default() };
        let spec = |endpoints: Vec<NetworkEndpoint>| ContainerSpec { endpoints, ..Default::default() };
        assert!(json(&spec(vec![plain("a")]), (1, 44)).get("NetworkingConfig").is_none());
        let two = json(&spec(vec![plain("a"), plain("b")]), (1, 44));
        assert_eq!(two["NetworkingConfig"]["EndpointsConfig"].as_object().unwrap().len(), 2);
        assert_eq!(spec(vec![plain("a"), plain("b")]).needs().unwrap().1, (1, 44));
    }
}
