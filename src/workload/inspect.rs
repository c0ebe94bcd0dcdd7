//! `docker inspect`: the daemon's text as it is, and the few fields that we need ourselves.
//!
//! The text becomes the `data` of TASK_RUNNING, so it must hold everything that this daemon reports, not only what a
//! client library's types contain. Fields come and go between Docker releases: each is optional.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;

use super::docker::{status_error, Docker, PAUSE};
use super::error::DockerError;
use crate::limits::DOCKER_INSPECT;

const TRIES: u32 = 6;
const DOING: &str = "inspect the container";
/// What Go prints for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A container as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inspected {
    pub id: String,
    /// The init process, seen from the host; `None` unless running.
    pub pid: Option<i32>,
    /// Has it ever been started? An inspect can overtake the start that it follows.
    pub started: bool,
    pub running: bool,
    /// Only meaningful when `started` and not `running`.
    pub exit_code: Option<i64>,
    pub oom_killed: bool,
    /// What Docker says about a failed start or a death of its own making.
    pub state_error: String,
    pub hostname: String,
    /// On the container's own network; none on the host's network or on `none`.
    pub addresses: Vec<IpAddr>,
    pub hosts_path: Option<PathBuf>,
    /// Behind the container's /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
    pub runtime: String,
    /// A JSON array of one object, indented by four blanks, as the docker CLI prints it.
    pub text: String,
}

impl Docker {
    /// Asks until there is an answer: a try is given up after five seconds and made again, six times.
    pub async fn inspect(&self, name: &str) -> Result<Inspected, DockerError> {
        for _ in 1..TRIES {
            match self.inspect_once(name, DOCKER_INSPECT).await {
                Err(error) if error.is_passing() => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
        self.inspect_once(name, DOCKER_INSPECT).await
    }

    /// One try, for those who have a fallback or a loop of their own.
    pub async fn inspect_once(&self, name: &str, limit: Duration) -> Result<Inspected, DockerError> {
        let get = async {
            let path = format!("/containers/{}/json", segment(name));
            let answer = self
                .transport
                .ask(Method::GET, &path, &[])
                .await
                .map_err(|error| self.send_error(DOING, error))?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await.map_err(|error| self.away(error))?.to_bytes();
            match status.is_success() {
                true => Ok(bytes),
                false => Err(status_error(DOING, status.as_u16(), daemon_words(&bytes))),
            }
        };
        let bytes = match tokio::time::timeout(limit, get).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.slow(DOING, limit)),
        };
        let value = serde_json::from_slice(&bytes).map_err(|error| DockerError::Daemon {
            doing: DOING.to_owned(),
            status: None,
            words: format!("its answer is not JSON: {error}"),
        })?;
        Ok(Inspected::of(value))
    }
}

impl Inspected {
    fn of(value: Value) -> Self {
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |pointer: &str| value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
        let pid = value.pointer("/State/Pid").and_then(Value::as_i64).unwrap_or_default();
        let started_at = text("/State/StartedAt");
        let path = |pointer: &str| Some(text(pointer)).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            id: text("/Id"),
            pid: i32::try_from(pid).ok().filter(|pid| *pid > 0),
            started: !started_at.is_empty() && started_at != NEVER,
            running: flag("/State/Running"),
            exit_code: value.pointer("/State/ExitCode").and_then(Value::as_i64),
            oom_killed: flag("/State/OOMKilled"),
            state_error: text("/State/Error"),
            hostname: text("/Config/Hostname"),
            addresses: addresses(&value),
            hosts_path: path("/HostsPath"),
            resolv_conf: path("/ResolvConfPath"),
            runtime: text("/HostConfig/Runtime"),
            text: as_the_cli_prints(&value),
        }
    }
}

/// Mesos looks under the network's name first, and for old daemons at the top.
fn addresses(value: &Value) -> Vec<IpAddr> {
    let settings = &value["NetworkSettings"];
    let mode = value.pointer("/HostConfig/NetworkMode").and_then(Value::as_str).unwrap_or_default();
    let mode = if mode == "default" { "bridge" } else { mode };
    let network = settings.get("Networks").and_then(|networks| networks.get(mode));
    let find = |key: &str| {
        let own = network.and_then(|network| network.get(key)).and_then(Value::as_str);
        let text = own.filter(|text| !text.is_empty()).or_else(|| settings.get(key)?.as_str())?;
        text.parse().ok()
    };
    ["IPAddress", "GlobalIPv6Address"].into_iter().filter_map(find).collect()
}

fn as_the_cli_prints(value: &Value) -> String {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
    let written = serde::Serialize::serialize(&[value], &mut serializer);
    debug_assert!(written.is_ok(), "a JSON value is always serialisable into memory");
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

/// The `message` of an error answer, or the whole text.
pub(super) fn daemon_words(body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()));
    message.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}

/// A container's name or id inside a path: whatever could end the segment is escaped.
pub(super) fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
            // A dot alone could make `..`; among others it is part of every Mesos name of old.
            b'.' if !name.trim_matches('.').is_empty() => text.push('.'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::any_json::nested;

    #[test]
    fn a_running_container() {
        let inspected = Inspected::of(json!({
            "Id": "ab", "State": {"Running": true, "Pid": 42, "StartedAt": "2026-11-23T00:00:00Z", "ExitCode": 0},
            "HostConfig": {"NetworkMode": "bridge"}, "Config": {"Hostname": "h"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": "fd00::2"}}},
            "Later": {"unknown": 1.5}
        }));
        assert_eq!(inspected.pid, Some(42));
        assert!(inspected.started && inspected.running);
        assert_eq!(
            inspected.addresses,
            ["172.17.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]
        );
        assert!(inspected.text.starts_with("[\n    {\n        \"Id\": \"ab\",\n"), "{}", inspected.text);
        assert!(inspected.text.contains("\"unknown\": 1.5") && inspected.text.ends_with("\n]\n"));
    }

    #[test]
    fn an_old_daemon_and_a_container_that_never_ran() {
        let inspected = Inspected::of(json!({
            "State": {"Pid": 0, "StartedAt": NEVER}, "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"IPAddress": "172.17.0.9"}
        }));
        assert!(!inspected.started && inspected.pid.is_none());
        assert_eq!(inspected.addresses.len(), 1);
        assert!(Inspected::of(json!([])).addresses.is_empty());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused_without_a_panic(answer in json(), body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = daemon_words(&body);
            let inspected = Inspected::of(answer.clone());
            prop_assert!(inspected.pid.is_none_or(|pid| pid > 0));
            prop_assert_eq!(serde_json::from_str::<Value>(&inspected.text).unwrap(), json!([answer]));
        }

        #[test]
        fn a_name_stays_in_its_segment(name in "(?s)[./%a-z]{0,6}|.{0,12}") {
            let uri: hyper::Uri = format!("/containers/{}/json?x", segment(&name)).parse().unwrap();
            prop_assert_eq!(uri.path().split('/').count(), 4, "{}", uri);
            prop_assert_eq!(uri.query(), Some("x"));
            prop_assert!(!uri.path().split('/').any(|part| matches!(part, "." | "..")), "{}", uri);
        }
    }

    /// In the places where something is looked for, whatever may stand there.
    fn json() -> impl Strategy<Value = Value> {
        let key = "Id|State|Pid|Running|ExitCode|StartedAt|Config|Hostname|HostConfig|NetworkMode|NetworkSettings|Networks|bridge|IPAddress|[a-z]{0,3}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "bridge|default|10\\.0\\.0\\.[0-9]{1,3}|(?s).{0,12}".prop_map(Value::from),
        ];
        nested(leaf, key)
    }

    #[test]
    fn path_segments() {
        assert_eq!(segment("mesos-a_b.c"), "mesos-a_b.c");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("a/b?c"), "a%2Fb%3Fc");
    }
}
