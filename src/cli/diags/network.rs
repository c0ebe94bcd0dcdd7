//! The network of this host and of its tasks.

use std::fs;

use crate::config::Config;
use crate::task::record::journal::View;

use super::bag::Bag;
use super::files::names;
use super::program;

/// The name in the archive, and the command line.
pub const PROGRAMS: [(&str, &str); 19] = [
    ("network/links.txt", "ip -d -s link"),
    ("network/addresses.txt", "ip address"),
    ("network/routes-v4.txt", "ip -4 route show table all"),
    ("network/routes-v6.txt", "ip -6 route show table all"),
    ("network/rules-v4.txt", "ip -4 rule"),
    ("network/rules-v6.txt", "ip -6 rule"),
    ("network/neighbours.txt", "ip -s neighbour"),
    ("network/named-namespaces.txt", "ip netns list"),
    ("network/listeners.txt", "ss -lntup"),
    ("network/bridges.txt", "bridge fdb"),
    ("firewall/nft.txt", "nft list ruleset"),
    ("firewall/iptables.txt", "iptables-save -c"),
    ("firewall/ip6tables.txt", "ip6tables-save -c"),
    ("firewall/iptables-legacy.txt", "iptables-legacy-save -c"),
    ("firewall/ip6tables-legacy.txt", "ip6tables-legacy-save -c"),
    ("firewall/ipset.txt", "ipset list"),
    ("versions/ip.txt", "ip -V"),
    ("versions/iptables.txt", "iptables --version"),
    ("versions/nft.txt", "nft --version"),
];
/// In each task's namespace.
const INSIDE: [&str; 4] =
    ["ip -d address", "ip -4 route show table all", "ip -6 route show table all", "ip neighbour"];
/// No more tasks are looked into.
const MOST_TASKS: usize = 50;
/// Settings of the kernel that decide over packets; `*` is every interface of a task, the uplinks, `all` and `default`.
const SYSCTLS: [&str; 32] = [
    "fs/file-max",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/pid_max",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
    "net/core/netdev_max_backlog",
    "net/core/somaxconn",
    "net/ipv4/conf/*/accept_local",
    "net/ipv4/conf/*/arp_announce",
    "net/ipv4/conf/*/arp_filter",
    "net/ipv4/conf/*/arp_ignore",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/proxy_arp",
    "net/ipv4/conf/*/route_localnet",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/conf/*/send_redirects",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/neigh/*/proxy_delay",
    "net/ipv4/neigh/default/gc_thresh1",
    "net/ipv4/neigh/default/gc_thresh2",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv6/conf/*/accept_ra",
    "net/ipv6/conf/*/disable_ipv6",
    "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/proxy_ndp",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "user/max_net_namespaces",
];

/// As `sysctl` prints them.
pub fn sysctls(bag: &Bag) {
    let mut lines = String::new();
    for pattern in SYSCTLS {
        let each = match pattern.split_once("/*/") {
            None => vec![pattern.to_owned()],
            Some((folder, name)) => {
                let of = |interface: String| format!("{folder}/{interface}/{name}");
                names(&std::path::Path::new("/proc/sys").join(folder))
                    .unwrap_or_default()
                    .into_iter()
                    .map(of)
                    .collect()
            }
        };
        for name in each {
            let shown = name.replace('.', "?").replace('/', ".").replace('?', "/");
            match fs::read_to_string(format!("/proc/sys/{name}")) {
                Ok(value) => lines.push_str(&format!("{shown} = {}\n", value.trim().replace('\t', " "))),
                Err(error) => lines.push_str(&format!("# {shown}: {error}\n")),
            }
        }
    }
    bag.add("kernel/sysctls.txt", lines);
}

/// Addresses, routes and neighbours as the tasks see them.
pub async fn namespaces(config: &Config, bag: Bag) {
    let folder = config.paths.journal();
    let files = match names(&folder) {
        Ok(files) => files,
        Err(error) => return bag.error("tasks", format!("cannot list {}: {error}", folder.display())),
    };
    let views = files.iter().filter_map(|name| View::of(&folder.join(name)).ok().flatten()?.ok());
    let mut count = 0;
    for view in views {
        let container = view.record.container.clone();
        let namespace = config.paths.task_run(&container).join("netns");
        count += 1;
        if count > MOST_TASKS {
            bag.absent(&format!("tasks/{container}"), "there are too many tasks to look into all of them");
            continue;
        }
        if !namespace.exists() {
            bag.absent(&format!("tasks/{container}"), "it has no namespace");
            continue;
        }
        let entered = format!("--net={}", namespace.display());
        for line in INSIDE {
            let words: Vec<&str> = ["nsenter", &entered].into_iter().chain(line.split(' ')).collect();
            let kind = line.replace(' ', "-");
            program::run(&format!("tasks/{container}/{kind}.txt"), &words, &bag).await;
        }
    }
}
