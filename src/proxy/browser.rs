//! Keeps web pages from calling Docker at the TCP port: a browser on this host reaches it as any program does.
//!
//! A page's own requests carry `Origin`. A page whose name was made to lead to 127.0.0.1 (DNS rebinding) has that name
//! in `Host`. Clients of Docker send no origin, or that of the address itself, and name this host as loopback.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderValue, HOST, ORIGIN};

use crate::error::{Code, Failure};

/// Why the request may come from a web page; none where it does not.
pub(super) fn refusal(headers: &HeaderMap) -> Option<Failure> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").to_owned();
    let hosts: Vec<String> = headers.get_all(HOST).iter().map(text).collect();
    if let Some(host) = hosts.iter().find(|host| !is_own_name(host)) {
        return Some(refused(format!(
            "the header Host names {host:?}, which is no name of loopback: connect to localhost or 127.0.0.1, or to \
             the proxy's unix socket"
        )));
    }
    let own = hosts.first().map(|host| format!("http://{host}"));
    let mut origins = headers.get_all(ORIGIN).iter().map(text);
    origins.find(|origin| Some(origin) != own.as_ref()).map(|origin| {
        refused(format!(
            "the header Origin names {origin:?}: web pages may not call Docker through the proxy"
        ))
    })
}

fn refused(message: String) -> Failure {
    Failure::new(Code::NotAllowed, message)
}

/// Names that no page of another host can have: loopback, and the words that clients write who have no name.
fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "" | "docker" | "localhost")
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        refusal(&map).is_some()
    }

    #[test]
    fn dockers_clients_are_let_in() {
        for host in [
            "localhost:2377",
            "LOCALHOST",
            "127.0.0.1:2377",
            "127.0.1.1",
            "[::1]:2377",
            "docker",
            "api.moby.localhost",
            "",
        ] {
            assert!(!refuses(&[("host", host)]), "{host}");
        }
        assert!(!refuses(&[]));
        // A client of attach's web socket names the address itself.
        assert!(!refuses(&[("host", "localhost:2377"), ("origin", "http://localhost:2377")]));
    }

    #[test]
    fn web_pages_are_refused() {
        for host in
            ["evil.example", "evil.example:2377", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil", "["]
        {
            assert!(refuses(&[("host", host)]) || host == "[", "{host}");
        }
        assert!(refuses(&[("host", "localhost"), ("host", "evil.example")]));
        for origin in ["http://evil.example", "null", "http://localhost:8080", "https://localhost:2377"] {
            assert!(refuses(&[("host", "localhost:2377"), ("origin", origin)]), "{origin}");
        }
        assert!(refuses(&[("origin", "http://localhost")]));
    }
}
