//! What a request asks Docker for, by its method and path alone.
//!
//! Docker's router (Go's `net/url` and gorilla/mux) decodes the path before it looks at it: `/containers%2fcre%61te` is
//! a create. It redirects what has empty or dot segments, and every route has a form with a version and one without.
//! This module reads a path in the same way, so that nothing passes by which Docker takes for another call.

use std::borrow::Cow;

use hyper::{Method, Uri};

/// The calls that the proxy looks into. A container's name may be any text, slashes among it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DockerRoute<'a> {
    Create {
        /// From the query; Docker invents one otherwise.
        name: Option<String>,
    },
    Start {
        container: Cow<'a, str>,
    },
    Restart {
        container: Cow<'a, str>,
    },
    Stop {
        container: Cow<'a, str>,
    },
    Kill {
        container: Cow<'a, str>,
        /// By a signal that may mean anything to it; otherwise by SIGKILL.
        signalled: bool,
    },
    Remove {
        container: Cow<'a, str>,
        /// Also while it runs.
        force: bool,
    },
    Inspect {
        container: Cow<'a, str>,
    },
    List,
    Connect {
        network: Cow<'a, str>,
        disconnect: bool,
    },
    Checkpoint {
        container: Cow<'a, str>,
    },
    CreateService,
    UpdateService,
    /// Attach, and the start of an exec: the connection becomes a stream of raw bytes, with or without `Upgrade`.
    Stream,
    /// Everything else. It is never looked into.
    Pass,
}

impl<'a> DockerRoute<'a> {
    /// As Docker's router decides.
    pub fn of(method: &Method, uri: &'a Uri) -> Self {
        // Docker answers 400 to a path that cannot be decoded, and redirects one that is not in its shortest form.
        let Some(path) = decoded(uri.path()).filter(|path| is_clean(path)) else { return Self::Pass };
        let path = match path {
            Cow::Borrowed(path) => Cow::Borrowed(without_version(path)),
            Cow::Owned(path) => Cow::Owned(without_version(&path).to_owned()),
        };
        match *method {
            Method::POST => Self::of_post(&path, uri),
            Method::GET if path == "/containers/json" => Self::List,
            Method::GET => named(&path, "/containers/", "/json")
                .map_or(Self::Pass, |container| Self::Inspect { container }),
            Method::DELETE => {
                let force =
                    parameter(uri.query().unwrap_or_default(), "force").is_some_and(|word| is_true(&word));
                named(&path, "/containers/", "")
                    .map_or(Self::Pass, |container| Self::Remove { container, force })
            }
            _ => Self::Pass,
        }
    }

    fn of_post(path: &Cow<'a, str>, uri: &Uri) -> Self {
        if path == "/containers/create" {
            return Self::Create { name: parameter(uri.query().unwrap_or_default(), "name") };
        }
        if path == "/services/create" {
            return Self::CreateService;
        }
        if let Some(container) = named(path, "/containers/", "/start") {
            return Self::Start { container };
        }
        if let Some(container) = named(path, "/containers/", "/restart") {
            return Self::Restart { container };
        }
        if let Some(container) = named(path, "/containers/", "/stop") {
            return Self::Stop { container };
        }
        if let Some(container) = named(path, "/containers/", "/kill") {
            let signal = parameter(uri.query().unwrap_or_default(), "signal");
            let signalled =
                signal.is_some_and(|word| !matches!(word.to_uppercase().as_str(), "KILL" | "SIGKILL" | "9"));
            return Self::Kill { container, signalled };
        }
        if let Some(container) = named(path, "/containers/", "/checkpoints") {
            return Self::Checkpoint { container };
        }
        if let Some(network) = named(path, "/networks/", "/connect") {
            return Self::Connect { network, disconnect: false };
        }
        if let Some(network) = named(path, "/networks/", "/disconnect") {
            return Self::Connect { network, disconnect: true };
        }
        if named(path, "/services/", "/update").is_some() {
            return Self::UpdateService;
        }
        let is_stream = named(path, "/containers/", "/attach").or_else(|| named(path, "/exec/", "/start"));
        is_stream.map_or(Self::Pass, |_| Self::Stream)
    }
}

/// What stands between the two, which may be nothing: Docker's pattern is `.*`, which ends at no slash.
fn named<'a>(path: &Cow<'a, str>, before: &str, after: &str) -> Option<Cow<'a, str>> {
    let within = |path: &str| path.strip_prefix(before)?.strip_suffix(after).map(str::len);
    let length = within(path)?;
    let range = before.len()..before.len() + length;
    Some(match path {
        Cow::Borrowed(path) => Cow::Borrowed(&path[range]),
        Cow::Owned(path) => Cow::Owned(path[range].to_owned()),
    })
}

/// `/v1.41/info` is `/info`. Docker judges the number later, and refuses one that it does not have.
fn without_version(path: &str) -> &str {
    let Some(rest) = path.strip_prefix("/v") else { return path };
    let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    match &rest[number..] {
        rest if number > 0 && rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Go's `cleanPath` would leave it as it is: no empty segment but the last, no `.` and no `..`.
fn is_clean(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let mut segments: Vec<&str> = rest.split('/').collect();
    if segments.last() == Some(&"") {
        segments.pop();
    }
    segments.iter().all(|segment| !matches!(*segment, "" | "." | ".."))
}

/// A path as Go decodes it: `%2f` is a slash and `+` is a plus. None where it refuses the request. Bytes that are no
/// text stay apart from every route, as in Go.
fn decoded(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let bytes = unescaped(path)?;
    Some(Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| {
        // The names of Docker's routes are ASCII, and remain.
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })))
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                // Two digits of base 16 are one byte.
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

/// The first value of a parameter of the query, as Go's `Form.Get` finds it; none where it is empty.
fn parameter(query: &str, name: &str) -> Option<String> {
    let text = |part: &str| {
        let bytes = unescaped(&part.replace('+', " "))?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let value = query.split('&').filter(|pair| !pair.contains(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (text(key)? == name).then(|| text(value)).flatten()
    })?;
    (!value.is_empty()).then_some(value)
}

/// A flag as Docker reads it.
fn is_true(word: &str) -> bool {
    !matches!(word.trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create() -> DockerRoute<'static> {
        DockerRoute::Create { name: None }
    }

    fn text(container: &str) -> Cow<'_, str> {
        Cow::Borrowed(container)
    }

    fn of<'a>(method: &str, uri: &'a Uri) -> DockerRoute<'a> {
        DockerRoute::of(&Method::from_bytes(method.as_bytes()).unwrap(), uri)
    }

    #[test]
    fn a_create_is_found_in_every_spelling_that_docker_takes_for_one() {
        for path in [
            "/containers/create",
            "/v1.41/containers/create",
            "/v999.1/containers/create",
            "/v./containers/create",
            "/v1.41.2/containers/create?",
            "/containers/cre%61te",
            "/%63ontainers%2fcreate",
            "/%76%31.41/containers/create",
            "http://docker/v1.41/containers/create",
            "http://user@evil:1/containers/create?x=1",
        ] {
            assert_eq!(of("POST", &path.parse().unwrap()), create(), "{path}");
        }
        for (query, name) in [
            ("name=web", Some("web")),
            ("x=1&name=a%2Fb+c&name=d", Some("a/b c")),
            ("n%61me=web", Some("web")),
            ("name=", None),
            ("Name=web", None),
            ("name=%zz", None),
            ("name=a;b&name=c", Some("c")),
        ] {
            let uri = format!("/containers/create?{query}").parse().unwrap();
            assert_eq!(of("POST", &uri), DockerRoute::Create { name: name.map(str::to_owned) }, "{query}");
        }
    }

    #[test]
    fn what_docker_redirects_or_does_not_know_passes() {
        for (method, path) in [
            ("POST", "//containers/create"),
            ("POST", "/containers//create"),
            ("POST", "/containers/create/"),
            ("POST", "/containers/./create"),
            ("POST", "/v1.41/../containers/create"),
            ("POST", "/v1.41/%2e%2e/containers/create"),
            ("POST", "/v1.41%2f%2fcontainers/create"),
            ("POST", "/containers/create%00"),
            ("POST", "/containers/create%20"),
            ("POST", "/containers/cre%6"),
            ("POST", "/v/containers/create"),
            ("POST", "/V1.41/containers/create"),
            ("POST", "/v1.41/v1.41/containers/create"),
            ("POST", "/Containers/Create"),
            ("post", "/containers/create"),
            ("PUT", "/containers/create"),
            ("GET", "/containers/create"),
            ("OPTIONS", "*"),
            ("POST", "/containers/web/pause"),
            ("GET", "/containers/web/jso%6e/"),
            ("GET", "/_ping"),
            ("POST", "/images/create"),
        ] {
            assert_eq!(of(method, &path.parse().unwrap()), DockerRoute::Pass, "{method} {path}");
        }
    }

    #[test]
    fn calls_for_a_container_name_it_as_docker_reads_it() {
        for (path, container) in [
            ("/containers/web/start", "web"),
            ("/v1.24/containers/web/start?detachKeys=x", "web"),
            ("/containers/a/b/start", "a/b"),
            ("/containers/%61%2Fb/start", "a/b"),
            ("/containers/create/start", "create"),
            ("/containers/web/kill/start", "web/kill"),
            ("/containers/caf%C3%A9/start", "café"),
        ] {
            let uri = path.parse().unwrap();
            assert_eq!(of("POST", &uri), DockerRoute::Start { container: text(container) }, "{path}");
        }
        let kill = |signalled| DockerRoute::Kill { container: text("web"), signalled };
        let remove = |force| DockerRoute::Remove { container: text("web"), force };
        let calls = [
            ("POST", "/v1.41/containers/web/restart", DockerRoute::Restart { container: text("web") }),
            ("POST", "/containers/web/stop?t=1", DockerRoute::Stop { container: text("web") }),
            ("POST", "/containers/web/kill", kill(false)),
            ("POST", "/containers/web/kill?signal=SIGKILL", kill(false)),
            ("POST", "/containers/web/kill?signal=kill", kill(false)),
            ("POST", "/containers/web/kill?signal=HUP", kill(true)),
            ("POST", "/containers/web/checkpoints", DockerRoute::Checkpoint { container: text("web") }),
            ("DELETE", "/containers/web?force=1", remove(true)),
            ("DELETE", "/containers/web?v=1&force=true", remove(true)),
            ("DELETE", "/containers/web?force=0", remove(false)),
            ("DELETE", "/containers/web", remove(false)),
            ("GET", "/v1.44/containers/web/json", DockerRoute::Inspect { container: text("web") }),
            ("GET", "/containers/json?all=1", DockerRoute::List),
            ("POST", "/networks/n/connect", DockerRoute::Connect { network: text("n"), disconnect: false }),
            ("POST", "/networks/n/disconnect", DockerRoute::Connect { network: text("n"), disconnect: true }),
            ("POST", "/services/create", DockerRoute::CreateService),
            ("POST", "/v1.41/services/s/update?version=1", DockerRoute::UpdateService),
            ("POST", "/containers/web/attach?stream=1", DockerRoute::Stream),
            ("POST", "/exec/e/start", DockerRoute::Stream),
            ("GET", "/containers/web/attach/ws", DockerRoute::Pass),
        ];
        for (method, path, route) in calls {
            assert_eq!(of(method, &path.parse().unwrap()), route, "{method} {path}");
        }
    }
}
