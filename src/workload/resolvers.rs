//! The name servers that Docker gives to a container when it cannot use the host's.
//!
//! A container cannot reach a name server of the host's loopback. Docker leaves such servers out of its resolv.conf,
//! and where no other one is left it writes Google's public ones, without a word. (It does so on the network `none` too;
//! a host of systemd-resolved is no such case, Docker reads the file with the real servers there.)

use std::net::IpAddr;

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
    fn name_servers_that_somebody_chose_are_not() {
        assert_eq!(fallback(DOCKERS, "nameserver 8.8.8.8\n"), None, "the host's own choice");
        assert_eq!(fallback("nameserver 10.0.0.2\n", "nameserver 127.0.0.53\n"), None, "dockerd's --dns");
        assert_eq!(fallback("nameserver 10.0.0.2\nnameserver 8.8.8.8\n", "nameserver 127.0.0.1\n"), None);
        assert_eq!(fallback("", ""), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_upsets_it(container in "(?s)(nameserver [0-9.:%a-f]{0,9}\n){0,3}.{0,20}", host in "(?s).{0,40}") {
            let _ = fallback(&container, &host);
        }
    }
}
