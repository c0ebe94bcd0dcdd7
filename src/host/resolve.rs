//! Host names to addresses, without the C library.
//!
//! The programs are linked statically and run with a task's environment: the C library's own look-up
//! would load NSS modules from disk and read variables that a task can set. The order is the usual
//! one: literal, `localhost`, `/etc/hosts`, then the name servers of `/etc/resolv.conf`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::runtime::{RuntimeProvider, TokioRuntimeProvider};
use hickory_resolver::net::NetError;
use hickory_resolver::Resolver;

use crate::limits::NAME_SERVER;

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("cannot use the name servers of /etc/resolv.conf to look up '{host}'")]
    NoServers {
        host: String,
        #[source]
        source: Box<NetError>,
    },
    #[error("cannot look up '{host}'")]
    Query {
        host: String,
        #[source]
        source: Box<NetError>,
    },
    #[error("'{host}' has no address")]
    NoAddress { host: String },
}

/// All addresses of a host, at least one; IPv4 first.
pub async fn lookup(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    lookup_by(TokioRuntimeProvider::default(), host).await
}

/// The same; the name servers are asked through sockets of `provider`.
pub async fn lookup_by<P: RuntimeProvider>(provider: P, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    if let Some(addresses) = without_asking(host) {
        return Ok(addresses);
    }
    let table = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let listed = in_hosts(&table, host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    ask(provider, host).await
}

fn without_asking(host: &str) -> Option<Vec<IpAddr>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Some(vec![address]);
    }
    // Asking a name server for it would be both slow and a leak.
    let is_local = host.eq_ignore_ascii_case("localhost");
    is_local.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

fn in_hosts(table: &str, host: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

async fn ask<P: RuntimeProvider>(provider: P, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let no_servers =
        |source: NetError| ResolveError::NoServers { host: host.to_owned(), source: Box::new(source) };
    let mut builder = Resolver::builder(provider).map_err(no_servers)?;
    let options = builder.options_mut();
    options.timeout = NAME_SERVER;
    options.attempts = 2;
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    let resolver = builder.build().map_err(no_servers)?;
    let answer = resolver
        .lookup_ip(host)
        .await
        .map_err(|source| ResolveError::Query { host: host.to_owned(), source: Box::new(source) })?;
    let mut addresses: Vec<IpAddr> = answer.iter().collect();
    if addresses.is_empty() {
        return Err(ResolveError::NoAddress { host: host.to_owned() });
    }
    addresses.sort();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_localhost_need_no_name_server() {
        assert_eq!(without_asking("[fd00::1]").unwrap(), ["fd00::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(without_asking("10.0.0.1").unwrap(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(without_asking("LocalHost").unwrap().len(), 2);
        assert_eq!(without_asking("etcd-1"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_hosts_file_and_any_name_are_handled_without_a_panic(table in "(?s)([0-9a-f.:]{0,9}[ \t#]?[a-z]{0,3}\n){0,6}|.{0,60}", host in "(?s)[a-z]{0,3}|.{0,30}") {
            let _ = without_asking(&host);
            proptest::prop_assert!(in_hosts(&table, &host).len() <= table.lines().count());
        }
    }

    #[test]
    fn names_are_looked_up_in_the_hosts_file() {
        let table = "# x\n10.0.0.7 etcd-1.prod ETCD-1 # etcd-2\nfd00::7 etcd-1\nnonsense etcd-1\n";
        let text = |host| in_hosts(table, host).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text("etcd-1"), ["10.0.0.7", "fd00::7"]);
        assert_eq!(text("etcd-2"), [""; 0]);
    }
}
