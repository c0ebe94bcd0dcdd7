//! `container.docker.parameters`: options of `docker run` by their long names, without the dashes.
//!
//! `TABLE` lists all of them. Parameters come after everything else in the TaskInfo, as on the command line of the
//! stock executor: an option that can be given once takes the last value, lists are added to. An option without a row,
//! or one that would take the task out of Mesos' hands, is refused with a sentence, never dropped.
//!
//! Values are read as the docker CLI of 28 reads them (`values`), with these differences: files named by `env-file` and
//! `label-file` are not read, a seccomp profile may be given in the parameter itself, and values that the CLI passes on
//! to a daemon that does not understand them are refused here.

mod devices;
pub(super) mod network;
mod storage;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use devices::{cgroup_rule, device, gpus, throttle, ulimit};
use network::{add_host, address, dns_search, expose, mac, publish};
use storage::{mount, tmpfs, volume};
use values::{boolean, integer, nano_cpus, pair, size, span};

use super::{environment, too_long, Failure, HOSTNAME_MAX};
use crate::error::Code;
use crate::mesos::messages::Parameter;
use crate::task::request::calico::shown;
use crate::workload::{ContainerSpec, NetworkEndpoint, Throttled};

/// What happens to a parameter that is given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// The last value counts.
    Last,
    /// All values count.
    All,
}
use Again::{All, Last};

/// What a parameter is for a task that has a Calico address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WithCalico {
    Same,
    /// It would take the task out of our hands, or off its network; what to do instead.
    Refused(&'static str),
}
use WithCalico::{Refused, Same};

/// Changes the container; the error is what is wrong with the value.
type Effect = fn(&mut Draft<'_>, &str) -> Result<(), String>;

/// What parameters change.
struct Draft<'a> {
    spec: &'a mut ContainerSpec,
    variables: &'a mut BTreeMap<String, String>,
    sandbox: &'a Path,
    notes: &'a mut Vec<String>,
    always_pull: bool,
    /// How many networks have been named.
    networks: usize,
    /// The settings of the first network that have parameters of their own.
    own: NetworkEndpoint,
}

const ADDRESS: &str = "set CALICO_IP to the address";
const NETWORK: &str = "a Calico task has one network; leave it out";
const PORTS: &str = "the task has an address of its own; use port mappings for ports of the host";
const RUNTIME: &str =
    "calico-runc starts the container; the runtime beneath it is in the agent's config.toml";
const USERNS: &str = "the task's network namespace belongs to the host's user namespace";
const VOLUMES_FROM: &str = "the volumes of another container cannot be checked; name them one by one";

/// Every option of `docker run`, from 20.10 to 28.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Again, WithCalico, Effect)] = &[
    // key                  sets                                    again with Calico
    ("entrypoint",          "Config.Entrypoint",                    Last, Same, |d, v| { d.spec.entrypoint = Some(vec![v.to_owned()]); Ok(()) }),
    ("env",                 "Config.Env",                           All,  Same, variable),
    ("label",               "Config.Labels",                        All,  Same, label),
    ("annotation",          "HostConfig.Annotations",               All,  Same, |d, v| put(&mut d.spec.annotations, v)),
    ("hostname",            "Config.Hostname",                      Last, Same, |d, v| hostname(&mut d.spec.hostname, v)),
    ("domainname",          "Config.Domainname",                    Last, Same, |d, v| hostname(&mut d.spec.domainname, v)),
    ("user",                "Config.User",                          Last, Same, |d, v| text(&mut d.spec.user, v)),
    ("workdir",             "Config.WorkingDir",                    Last, Same, |d, v| text(&mut d.spec.working_dir, v)),
    ("stop-signal",         "Config.StopSignal",                    Last, Same, |d, v| text(&mut d.spec.stop_signal, v)),
    ("stop-timeout",        "Config.StopTimeout",                   Last, Same, |d, v| set(&mut d.spec.stop_timeout, integer(v))),
    ("init",                "HostConfig.Init",                      Last, Same, |d, v| set(&mut d.spec.init, boolean(v))),
    ("runtime",             "HostConfig.Runtime",                   Last, Refused(RUNTIME), |d, v| text(&mut d.spec.runtime, v)),
    ("platform",            "the image, and the container's platform", Last, Same, platform),
    ("pull",                "when the image is pulled",             Last, Same, pull),

    ("health-cmd",          "Config.Healthcheck.Test",              Last, Same, |d, v| text(&mut d.spec.health.command, v)),
    ("health-interval",     "Config.Healthcheck.Interval",          Last, Same, |d, v| number(&mut d.spec.health.interval, span(v))),
    ("health-timeout",      "Config.Healthcheck.Timeout",           Last, Same, |d, v| number(&mut d.spec.health.timeout, span(v))),
    ("health-start-period", "Config.Healthcheck.StartPeriod",       Last, Same, |d, v| number(&mut d.spec.health.start_period, span(v))),
    ("health-start-interval", "Config.Healthcheck.StartInterval",   Last, Same, |d, v| number(&mut d.spec.health.start_interval, span(v))),
    ("health-retries",      "Config.Healthcheck.Retries",           Last, Same, |d, v| number(&mut d.spec.health.retries, natural(v))),
    ("no-healthcheck",      "Config.Healthcheck.Test",              Last, Same, |d, v| { d.spec.health.disabled = boolean(v)?; Ok(()) }),

    ("volume",              "HostConfig.Binds, Config.Volumes",     All,  Same, volume),
    ("volume-driver",       "HostConfig.VolumeDriver",              Last, Same, |d, v| text(&mut d.spec.volume_driver, v)),
    ("volumes-from",        "HostConfig.VolumesFrom",               All,  Refused(VOLUMES_FROM), |d, v| push(&mut d.spec.volumes_from, v)),
    ("mount",               "HostConfig.Mounts",                    All,  Same, mount),
    ("tmpfs",               "HostConfig.Tmpfs",                     All,  Same, tmpfs),
    ("shm-size",            "HostConfig.ShmSize",                   Last, Same, |d, v| set(&mut d.spec.shm_size, size(v))),
    ("storage-opt",         "HostConfig.StorageOpt",                All,  Same, storage_option),
    ("read-only",           "HostConfig.ReadonlyRootfs",            Last, Same, |d, v| { d.spec.read_only = boolean(v)?; Ok(()) }),
    ("log-driver",          "HostConfig.LogConfig.Type",            Last, Same, |d, v| text(&mut d.spec.log_driver, v)),
    ("log-opt",             "HostConfig.LogConfig.Config",          All,  Same, |d, v| put(&mut d.spec.log_options, v)),

    // The first takes the place of the TaskInfo's own network; more need Docker 25.
    ("network",             "HostConfig.NetworkMode, EndpointsConfig", All, Refused(NETWORK), network::network),
    ("net",                 "the same",                             All,  Refused(NETWORK), network::network),
    ("ip",                  "EndpointsConfig.*.IPAMConfig.IPv4Address", Last, Refused(ADDRESS), |d, v| set(&mut d.own.ipv4, address(v, |ip| ip.is_ipv4()))),
    ("ip6",                 "EndpointsConfig.*.IPAMConfig.IPv6Address", Last, Refused(ADDRESS), |d, v| set(&mut d.own.ipv6, address(v, |ip| ip.is_ipv6()))),
    ("link-local-ip",       "EndpointsConfig.*.IPAMConfig.LinkLocalIPs", All, Refused(ADDRESS), |d, v| push(&mut d.own.link_local, &address(v, |_| true)?)),
    ("mac-address",         "EndpointsConfig.*.MacAddress",         Last, Refused("Calico's interface has its own"), |d, v| set(&mut d.own.mac_address, mac(v))),
    ("network-alias",       "EndpointsConfig.*.Aliases",            All,  Refused("the task has its name in Consul"), |d, v| push(&mut d.own.aliases, v)),
    ("net-alias",           "the same",                             All,  Refused("the task has its name in Consul"), |d, v| push(&mut d.own.aliases, v)),
    ("publish",             "HostConfig.PortBindings",              All,  Refused(PORTS), publish),
    ("publish-all",         "HostConfig.PublishAllPorts",           Last, Refused(PORTS), |d, v| { d.spec.publish_all = boolean(v)?; Ok(()) }),
    ("expose",              "Config.ExposedPorts",                  All,  Same, expose),
    ("add-host",            "HostConfig.ExtraHosts",                All,  Same, add_host),
    ("dns",                 "HostConfig.Dns",                       All,  Same, |d, v| push(&mut d.spec.dns, &address(v, |_| true)?)),
    ("dns-search",          "HostConfig.DnsSearch",                 All,  Same, dns_search),
    ("dns-opt",             "HostConfig.DnsOptions",                All,  Same, |d, v| push(&mut d.spec.dns_options, v)),
    ("dns-option",          "the same",                             All,  Same, |d, v| push(&mut d.spec.dns_options, v)),

    ("cpu-shares",          "HostConfig.CpuShares",                 Last, Same, |d, v| set(&mut d.spec.cpu_shares, integer(v))),
    ("cpu-period",          "HostConfig.CpuPeriod",                 Last, Same, |d, v| set(&mut d.spec.cpu_period, integer(v))),
    ("cpu-quota",           "HostConfig.CpuQuota",                  Last, Same, |d, v| set(&mut d.spec.cpu_quota, integer(v))),
    ("cpu-rt-period",       "HostConfig.CpuRealtimePeriod",         Last, Same, |d, v| set(&mut d.spec.cpu_realtime_period, integer(v))),
    ("cpu-rt-runtime",      "HostConfig.CpuRealtimeRuntime",        Last, Same, |d, v| set(&mut d.spec.cpu_realtime_runtime, integer(v))),
    ("cpus",                "HostConfig.NanoCpus",                  Last, Same, cpus),
    ("cpuset-cpus",         "HostConfig.CpusetCpus",                Last, Same, |d, v| text(&mut d.spec.cpuset_cpus, v)),
    ("cpuset-mems",         "HostConfig.CpusetMems",                Last, Same, |d, v| text(&mut d.spec.cpuset_mems, v)),
    ("memory",              "HostConfig.Memory",                    Last, Same, |d, v| set(&mut d.spec.memory, size(v))),
    ("memory-reservation",  "HostConfig.MemoryReservation",         Last, Same, |d, v| set(&mut d.spec.memory_reservation, size(v))),
    ("memory-swap",         "HostConfig.MemorySwap",                Last, Same, |d, v| set(&mut d.spec.memory_swap, if v == "-1" { Ok(-1) } else { size(v) })),
    ("memory-swappiness",   "HostConfig.MemorySwappiness",          Last, Same, swappiness),
    ("oom-kill-disable",    "HostConfig.OomKillDisable",            Last, Same, |d, v| set(&mut d.spec.oom_kill_disable, boolean(v))),
    ("oom-score-adj",       "HostConfig.OomScoreAdj",               Last, Same, |d, v| set(&mut d.spec.oom_score_adj, integer(v))),
    ("pids-limit",          "HostConfig.PidsLimit",                 Last, Same, |d, v| set(&mut d.spec.pids_limit, integer(v))),
    ("ulimit",              "HostConfig.Ulimits",                   All,  Same, ulimit),
    ("device",              "HostConfig.Devices, DeviceRequests",   All,  Same, device),
    ("device-cgroup-rule",  "HostConfig.DeviceCgroupRules",         All,  Same, cgroup_rule),
    ("device-read-bps",     "HostConfig.BlkioDeviceReadBps",        All,  Same, |d, v| throttle(d, Throttled::ReadBytes, v)),
    ("device-write-bps",    "HostConfig.BlkioDeviceWriteBps",       All,  Same, |d, v| throttle(d, Throttled::WriteBytes, v)),
    ("device-read-iops",    "HostConfig.BlkioDeviceReadIOps",       All,  Same, |d, v| throttle(d, Throttled::ReadOperations, v)),
    ("device-write-iops",   "HostConfig.BlkioDeviceWriteIOps",      All,  Same, |d, v| throttle(d, Throttled::WriteOperations, v)),
    ("gpus",                "HostConfig.DeviceRequests",            All,  Same, gpus),
    ("cgroup-parent",       "HostConfig.CgroupParent",              Last, Same, |d, v| text(&mut d.spec.cgroup_parent, v)),
    ("sysctl",              "HostConfig.Sysctls",                   All,  Same, sysctl),

    ("privileged",          "HostConfig.Privileged",                Last, Same, |d, v| { d.spec.privileged = boolean(v)?; Ok(()) }),
    ("cap-add",             "HostConfig.CapAdd",                    All,  Same, |d, v| push(&mut d.spec.cap_add, v)),
    ("cap-drop",            "HostConfig.CapDrop",                   All,  Same, |d, v| push(&mut d.spec.cap_drop, v)),
    ("group-add",           "HostConfig.GroupAdd",                  All,  Same, |d, v| push(&mut d.spec.group_add, v)),
    ("security-opt",        "HostConfig.SecurityOpt, MaskedPaths, ReadonlyPaths", All, Same, security_option),
    ("pid",                 "HostConfig.PidMode",                   Last, Same, |d, v| mode(&mut d.spec.pid_mode, v, &["host"], true)),
    ("ipc",                 "HostConfig.IpcMode",                   Last, Same, |d, v| mode(&mut d.spec.ipc_mode, v, &["host", "none", "private", "shareable"], true)),
    ("uts",                 "HostConfig.UTSMode",                   Last, Same, |d, v| mode(&mut d.spec.uts_mode, v, &["host"], false)),
    ("userns",              "HostConfig.UsernsMode",                Last, Refused(USERNS), |d, v| mode(&mut d.spec.userns_mode, v, &["host"], false)),
    ("cgroupns",            "HostConfig.CgroupnsMode",              Last, Same, |d, v| mode(&mut d.spec.cgroupns_mode, v, &["host", "private"], false)),

    // Allowed as far as they change nothing.
    ("attach",              "nothing",                              All,  Same, |_, v| only(&["stdout", "stderr"], &v.to_lowercase(), "asks for a stream that a task does not have; its stdout and stderr are always read")),
    ("detach",              "nothing",                              Last, Same, |_, v| only_if(false, v, "would detach from the container, whose end the executor has to see; leave it out")),
    ("detach-keys",         "nothing",                              Last, Same, |_, _| Ok(())),
    ("disable-content-trust", "nothing",                            Last, Same, |_, v| only_if(true, v, "asks for Docker Content Trust, which is not checked here; name the image by its digest")),
    ("interactive",         "nothing",                              Last, Same, |_, v| only_if(false, v, "asks for an input that a task does not have; leave it out")),
    ("quiet",               "nothing",                              Last, Same, |_, v| boolean(v).map(|_| ())),
    ("restart",             "nothing",                              Last, Same, |_, v| only(&["", "no"], v, "would restart the container without Mesos; the framework restarts tasks")),
    ("rm",                  "nothing",                              Last, Same, |_, v| only_if(false, v, "would remove the container before Mesos has seen its end; the agent removes it (--docker_remove_delay)")),
    ("sig-proxy",           "nothing",                              Last, Same, |_, v| boolean(v).map(|_| ())),
    ("tty",                 "nothing",                              Last, Same, |_, v| only_if(false, v, "asks for a terminal, which would mix stdout and stderr; leave it out")),

    // Never.
    ("cidfile",             "nothing",                              Last, Same, |_, _| Err("would write a file on the agent; the container's name is in MESOS_CONTAINER_NAME".into())),
    ("name",                "nothing",                              Last, Same, |_, _| Err("would hide the container from the agent, which finds it by a name of its own; that name is in MESOS_CONTAINER_NAME".into())),
    ("env-file",            "nothing",                              All,  Same, |_, _| Err("names a file of the agent, which is not read for a task; put the variables into the app's env".into())),
    ("label-file",          "nothing",                              All,  Same, |_, _| Err("names a file of the agent, which is not read for a task; use the parameter label".into())),
    ("link",                "nothing",                              All,  Refused("find the other task by its name in Consul"), |_, _| Err("is a legacy option of Docker; use network-alias on a user-defined network".into())),
    ("blkio-weight",        "nothing",                              Last, Same, |_, _| Err("is not supported; use device-read-bps and its like".into())),
    ("blkio-weight-device", "nothing",                              All,  Same, |_, _| Err("is not supported; use device-read-bps and its like".into())),
    ("kernel-memory",       "nothing",                              Last, Same, |_, _| Err("is not supported by newer kernels and Docker; use memory".into())),
    ("isolation",           "nothing",                              Last, Same, |_, _| Err("means something on Windows only".into())),
    ("cpu-count",           "nothing",                              Last, Same, |_, _| Err("means something on Windows only; use cpus".into())),
    ("cpu-percent",         "nothing",                              Last, Same, |_, _| Err("means something on Windows only; use cpus".into())),
    ("io-maxbandwidth",     "nothing",                              Last, Same, |_, _| Err("means something on Windows only; use device-read-bps and its like".into())),
    ("io-maxiops",          "nothing",                              Last, Same, |_, _| Err("means something on Windows only; use device-read-iops and its like".into())),
    ("use-api-socket",      "nothing",                              Last, Same, |_, _| Err("is not supported; mount Docker's socket as a volume".into())),
];

/// Parameters whose values may have several lines.
const LINES: &[&str] = &["annotation", "entrypoint", "env", "health-cmd", "label", "log-opt"];

#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(key, ..)| *key)
}

/// Applies all parameters in their order. Returns whether the image is to be pulled in any case.
pub(super) fn apply(
    parameters: &[Parameter],
    calico: bool,
    sandbox: &Path,
    spec: &mut ContainerSpec,
    variables: &mut BTreeMap<String, String>,
    notes: &mut Vec<String>,
) -> Result<bool, Failure> {
    let own = NetworkEndpoint::default();
    let mut draft = Draft { spec, variables, sandbox, notes, always_pull: false, networks: 0, own };
    for Parameter { key, value } in parameters {
        let Some((_, _, _, with_calico, effect)) = TABLE.iter().find(|(name, ..)| name == key) else {
            let key = shown(key);
            return Err(failure(format!("the parameter {key} is not a supported option of docker run")));
        };
        if let (true, Refused(instead)) = (calico, with_calico) {
            return Err(failure(format!(
                "the parameter {key} cannot be used together with Calico: {instead}"
            )));
        }
        let lines = LINES.contains(&key.as_str());
        if value.contains(|c: char| c == '\0' || (c.is_control() && !lines)) {
            return Err(wrong(key, value, "contains control characters"));
        }
        effect(&mut draft, value).map_err(|reason| wrong(key, value, &reason))?;
    }
    finish(&mut draft).map_err(failure)?;
    Ok(draft.always_pull)
}

/// Checks what depends on several parameters.
fn finish(draft: &mut Draft<'_>) -> Result<(), String> {
    if draft.spec.health.disabled && draft.spec.health.is_set() {
        return Err("the parameter no-healthcheck contradicts those that begin with health-".into());
    }
    if draft.spec.log_driver.as_deref() == Some("none") && !draft.spec.log_options.is_empty() {
        return Err("the parameter log-opt has no meaning for log-driver=none".into());
    }
    network::finish(draft)
}

fn failure(message: String) -> Failure {
    Failure::new(Code::Parameter, message)
}

pub(super) fn wrong(key: &str, value: &str, reason: &str) -> Failure {
    // Only the name: these values can be secrets.
    let told = match key {
        "env" | "log-opt" | "label" => value.split('=').next().unwrap_or_default(),
        _ => value,
    };
    failure(format!("the parameter {key}={} {reason}", shown(told)))
}

/// An empty text is as good as none.
fn text(field: &mut Option<String>, value: &str) -> Result<(), String> {
    *field = Some(value.to_owned()).filter(|value| !value.is_empty());
    Ok(())
}

fn hostname(field: &mut Option<String>, value: &str) -> Result<(), String> {
    match value.len() > HOSTNAME_MAX {
        true => Err(too_long(value)),
        false => text(field, value),
    }
}

fn set<T>(field: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *field = Some(value?);
    Ok(())
}

fn number(field: &mut i64, value: Result<i64, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn natural(value: &str) -> Result<i64, String> {
    integer(value).and_then(|number| if number < 0 { Err("is negative".into()) } else { Ok(number) })
}

fn push(list: &mut Vec<String>, value: &str) -> Result<(), String> {
    if value.trim().is_empty() {
        return Err("is empty".into());
    }
    list.push(value.to_owned());
    Ok(())
}

fn put(map: &mut BTreeMap<String, String>, value: &str) -> Result<(), String> {
    map.extend([pair(value)?]);
    Ok(())
}

fn only(harmless: &[&str], value: &str, reason: &str) -> Result<(), String> {
    if harmless.contains(&value) {
        Ok(())
    } else {
        Err(reason.to_owned())
    }
}

fn only_if(harmless: bool, value: &str, reason: &str) -> Result<(), String> {
    if boolean(value)? == harmless {
        Ok(())
    } else {
        Err(reason.to_owned())
    }
}

/// Whose namespace: none of its own, or that of another container.
fn mode(field: &mut Option<String>, value: &str, known: &[&str], of_container: bool) -> Result<(), String> {
    let container = value.strip_prefix("container:").is_some_and(|name| of_container && !name.is_empty());
    if !value.is_empty() && !known.contains(&value) && !container {
        let container = if of_container { " or container:name" } else { "" };
        return Err(format!("is none of {}{container}", known.join(", ")));
    }
    text(field, value)
}

/// `NAME=value`; a name alone means the value that the task has already, or takes the image's away.
fn variable(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    if name.is_empty() {
        return Err("has no name".into());
    }
    match value {
        Some(value) => environment::insert(draft.variables, name, value)
            .map_err(|error| format!("cannot be a variable: {}", error.message)),
        None => {
            draft.spec.environment.push(name.to_owned());
            Ok(())
        }
    }
}

fn label(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let (key, value) = pair(text)?;
    let bare = key.trim_start_matches([' ', '\t']);
    if bare.is_empty() || bare.contains([' ', '\t']) {
        return Err("has a key with blanks in it".into());
    }
    draft.spec.labels.insert(key, value);
    Ok(())
}

fn storage_option(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    if !text.contains('=') {
        return Err("is not key=value".into());
    }
    put(&mut draft.spec.storage_options, text)
}

/// A limit in CPUs takes the place of the quota that the task's resources gave, which Docker would not allow beside it.
fn cpus(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    draft.spec.nano_cpus = Some(nano_cpus(text)?);
    draft.spec.cpu_quota = None;
    Ok(())
}

fn swappiness(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    match integer(text)? {
        percent @ -1..=100 => set(&mut draft.spec.memory_swappiness, Ok(percent)),
        _ => Err("is not between 0 and 100".into()),
    }
}

/// Those that belong to a namespace of the container.
fn sysctl(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    const KERNEL: &[&str] =
        &["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let (name, value) = text.split_once('=').ok_or("is not name=value")?;
    let kernel = name.strip_prefix("kernel.").is_some_and(|name| KERNEL.contains(&name));
    if !kernel && !name.starts_with("net.") && !name.starts_with("fs.mqueue.") {
        return Err(
            "is not a setting of the container's own namespaces; the operator sets those of the host".into(),
        );
    }
    draft.spec.sysctls.insert(name.to_owned(), value.to_owned());
    Ok(())
}

fn security_option(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    if text == "systempaths=unconfined" {
        draft.spec.unmask_system_paths = true;
        return Ok(());
    }
    let (key, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    if value.is_empty() && key != "no-new-privileges" {
        return Err("is not key=value".into());
    }
    // A profile may stand in the option itself; a file is read when the container is made.
    let is_name =
        key == "seccomp" && !value.starts_with(['/', '{']) && !matches!(value, "builtin" | "unconfined");
    match is_name {
        true => push(
            &mut draft.spec.security_options,
            &format!("seccomp={}", draft.sandbox.join(value).display()),
        ),
        false => push(&mut draft.spec.security_options, text),
    }
}

/// `os[/arch[/variant]]`.
fn platform(draft: &mut Draft<'_>, value: &str) -> Result<(), String> {
    let word = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    match value.chars().all(word) {
        true => text(&mut draft.spec.platform, value),
        false => Err("is not os/arch/variant".into()),
    }
}

fn pull(draft: &mut Draft<'_>, value: &str) -> Result<(), String> {
    draft.always_pull = value == "always";
    match value {
        "never" => {
            let note = "the parameter pull=never has no effect: Mesos brings an image that is missing";
            draft.notes.push(note.to_owned());
            Ok(())
        }
        "" | "always" | "missing" => Ok(()),
        _ => Err("is none of always, missing and never".into()),
    }
}
