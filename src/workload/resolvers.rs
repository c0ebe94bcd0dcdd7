//! The name servers that Docker gives to a container when it cannot use the host's.
//!
//! A container cannot reach a name server of the host's loopback. Docker leaves such servers out of its resolv.conf,
//! and where no other one is left it writes Google's public ones, without a word. (It does so on the network `none`
//! too.) On a host of systemd-resolved Docker reads the file with the real servers instead, see [`of_host`].

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved listens, and where it lists the servers that it asks.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
const BEHIND_THE_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// What Docker writes where nothing else is left.
const PUBLIC: [&str; 4] = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/// Did Docker give the container public name servers in place of the host's? From both files' text; a sentence for
/// the log.
pub fn fallback(container: &str, host: &str) -> Option<String> {
    let (given, own) = (servers(container), servers(host));
    let public = |server: &IpAddr| PUBLIC.iter().any(|text| text.parse() == Ok(*server));
    let fell_back = !given.is_empty() && given.iter().all(public) && own.iter().all(IpAddr::is_loopback);
    let list = |servers: &[IpAddr]| servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let here = match own.is_empty() {
        true => "this host names no name server".to_owned(),
        false => format!("this host resolves at {}, which a container cannot reach", list(&own)),
    };
    fell_back.then(|| {
        format!(
            "Docker gave this task the public name servers {}: {here}; set servers in [dns] of config.toml",
            list(&given)
        )
    })
}

/// The text of the host's resolv.conf that Docker goes by; `None` where it cannot be read.
pub fn of_host() -> Option<String> {
    chosen(Path::new(RESOLV_CONF), Path::new(BEHIND_THE_STUB))
}

/// Docker takes the other file where the stub is the only server. Its servers may be the public ones: then these are
/// the host's own choice.
fn chosen(file: &Path, behind: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    match servers(&text)[..] {
        [STUB] => fs::read_to_string(behind).ok().or(Some(text)),
        _ => Some(text),
    }
}

fn servers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        // A zone (`fe80::1%eth0`) makes no address of a public or loopback one.
        (words.next()? == "nameserver").then(|| words.next()?.split('%').next()?.parse().ok())?
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker 20.10 writes it beside a host with `nameserver 127.0.0.1`.
    const DOCKERS: &str = "\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";

    #[test]
    fn public_name_servers_in_place_of_loopback_are_noted() {
        let note = fallback(DOCKERS, "# local\nnameserver 127.0.0.53\noptions edns0\n").unwrap();
        assert!(note.contains("8.8.8.8, 8.8.4.4") && note.contains("127.0.0.53"), "{note}");
        assert!(note.contains("[dns] of config.toml"), "{note}");
        assert!(fallback(DOCKERS, "nameserver ::1\nnameserver 127.0.0.1\n")
            .unwrap()
            .contains("::1, 127.0.0.1"));
        assert!(fallback(DOCKERS, "search x\n").unwrap().contains("names no name server"));
    }

    #[test]
    fn servers_behind_systemds_stub_are_the_hosts_own() {
        let dir = tempfile::tempdir().unwrap();
        let [etc, behind] = ["etc", "behind"].map(|name| dir.path().join(name));
        let noted = |text: &str| {
            fs::write(&etc, text).unwrap();
            fallback(DOCKERS, &chosen(&etc, &behind).unwrap()).is_some()
        };
        assert!(noted("nameserver 127.0.0.53\n"), "there is no other file");
        fs::write(&behind, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n").unwrap();
        assert!(!noted("nameserver 127.0.0.53\noptions edns0\n"));
        assert!(noted("nameserver 127.0.0.1\n"), "dnsmasq, beside an unused systemd-resolved");
        assert!(noted("nameserver 127.0.0.53\nnameserver 127.0.0.1\n"));
    }

    #[test]
    fn name_servers_that_were_configured_are_not() {
        assert_eq!(fallback(DOCKERS, "nameserver 8.8.8.8\n"), None, "the host's own choice");
        assert_eq!(fallback("nameserver 10.0.0.2\n", "nameserver 127.0.0.53\n"), None, "dockerd's --dns");
        assert_eq!(fallback("nameserver 10.0.0.2\nnameserver 8.8.8.8\n", "nameserver 127.0.0.1\n"), None);
        assert_eq!(fallback("", ""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(container in "(?s)(nameserver [0-9.:%a-f]{0,9}\n){0,3}.{0,20}", host in "(?s).{0,40}") {
            let _ = fallback(&container, &host);
        }
    }
}
