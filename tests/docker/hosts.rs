//! The names in a container's hosts file, held against the file that Docker writes for the same container.

use std::net::IpAddr;

use calico_mesos::task::network::hosts_lines;
use calico_mesos::workload::ContainerSpec;

use crate::daemon::{run, shared, shell};

fn spec(network: &str, hostname: Option<&str>, domainname: Option<&str>) -> ContainerSpec {
    let script = "cat /etc/hosts; echo ---; ip -o addr show eth0 scope global; echo ---; cat /proc/1/cgroup \
                  /proc/self/mountinfo";
    ContainerSpec {
        network: network.into(),
        hostname: hostname.map(str::to_owned),
        domainname: domainname.map(str::to_owned),
        extra_hosts: vec!["db:10.1.2.3".into(), "db6:fd00::7".into()],
        ..shell(script)
    }
}

#[tokio::test]
async fn the_names_are_those_that_docker_writes() {
    let daemon = shared();
    let docker = daemon.connect().await;
    daemon.cli(&["network", "create", "--ipv6", "--subnet", "fd99::/64", "both"]);
    for (network, hostname, domainname) in [
        ("bridge", Some("web"), None),
        ("bridge", Some("web.prod.example"), None),
        ("bridge", Some("web"), Some("prod.example")),
        ("bridge", Some("web.prod"), Some("example.com")),
        ("bridge", Some("web"), Some("")),
        ("bridge", None, Some("example.com")),
        ("bridge", None, None),
        ("both", Some("web"), None),
        ("both", Some("web.prod"), Some("example.com")),
    ] {
        let spec = spec(network, hostname, domainname);
        let ran = run(&docker, &spec).await.unwrap();
        let parts: Vec<&str> = ran.stdout.split("---\n").collect();
        let [hosts, links, rest] = parts[..] else { panic!("{}", ran.stdout) };
        let addresses: Vec<IpAddr> = links
            .lines()
            .map(|line| line.split_whitespace().nth(3).unwrap().split('/').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(addresses.len(), if network == "both" { 2 } else { 1 }, "{links}");
        // Docker's id, of which the hostname is made where there is none.
        let id = rest.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 64).unwrap();
        let ours = hosts_lines(&addresses, &spec.host_names(id));
        let (before, theirs) = hosts.split_once("fd00::7\tdb6\n").unwrap();
        assert!(before.contains("10.1.2.3\tdb\n"), "{hosts}");
        assert_eq!(theirs, ours, "{hostname:?} {domainname:?}");
    }
    daemon.cli(&["network", "rm", "both"]);
}
