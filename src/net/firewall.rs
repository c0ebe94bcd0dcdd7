//! The firewall's part of `dataplane = "local"`: masquerading in an nft table of our own, and accept
//! rules at the head of foreign forward chains whose policy is "drop" (Docker sets that one).
//!
//! A verdict "accept" in our own table would not help: every base chain is applied. No chain is
//! ever made in a foreign table; that is why `iptables` itself is not used: it leaves empty ones.

use super::link::INTERFACE_PREFIX;
use super::marker::Chain;
use super::netfilter::NetfilterFamily;
use super::nftables::{self, list, SeenChain};
use super::program::{locate, run};
use super::NetError;
use ipnet::IpNet;

/// Our table, and the comment on our rules in other people's chains.
const NAME: &str = "calico-mesos";

/// Is our table still there for every family that has a pool?
pub(super) fn is_present(pools: &[IpNet]) -> bool {
    [(NetfilterFamily::Ip, true), (NetfilterFamily::Ip6, false)].iter().all(|(family, is_v4)| {
        !pools.iter().any(|pool| pool.addr().is_ipv4() == *is_v4)
            || matches!(nftables::table(*family, NAME), Ok(Some(_)))
    })
}

/// Foreign base chains at the forward hook that drop what no rule accepts.
pub(super) fn dropping_chains() -> Result<Vec<Chain>, NetError> {
    Ok(chains()?.into_iter().filter(|chain| chain.drops_forwarded).map(Chain::from).collect())
}

/// Bridges have a forward hook too; what goes through one never comes to a container, so that theirs do not count.
fn chains() -> Result<Vec<SeenChain>, NetError> {
    nftables::chains().map_err(|error| NetError::Firewall {
        command: "the list of netfilter's chains".to_owned(),
        output: error.to_string(),
    })
}

impl From<SeenChain> for Chain {
    fn from(chain: SeenChain) -> Self {
        Self { family: chain.family.to_owned(), table: chain.table, name: chain.name }
    }
}

/// Programs of the old iptables whose FORWARD chain drops by policy, in this network namespace.
///
/// They are asked only where the kernel has their filter table already; asking would make it.
pub(super) async fn dropping_legacy() -> Result<Vec<String>, NetError> {
    let mut found = Vec::new();
    for (program, tables) in [
        ("iptables-legacy", "/proc/self/net/ip_tables_names"),
        ("ip6tables-legacy", "/proc/self/net/ip6_tables_names"),
    ] {
        let names = std::fs::read_to_string(tables).unwrap_or_default();
        if !names.lines().any(|name| name == "filter") || locate(program).is_none() {
            continue;
        }
        let rules = run(program, &["-w", "-S", "FORWARD"], "").await?;
        if rules.lines().next() == Some("-P FORWARD DROP") {
            found.push(program.to_owned());
        }
    }
    Ok(found)
}

/// Makes or replaces our table and sees to the accept rules, in one transaction of nft.
pub(super) async fn apply(pools: &Vec<IpNet>, chains: &[Chain], legacy: &[String]) -> Result<(), NetError> {
    let mut script = String::new();
    let pools = IpNet::aggregate(pools);
    for (family, kind, is_v4) in [("ip", "ipv4_addr", true), ("ip6", "ipv6_addr", false)] {
        let nets: Vec<String> = pools
            .iter()
            .filter(|net| net.addr().is_ipv4() == is_v4)
            .map(|net| net.trunc().to_string())
            .collect();
        if nets.is_empty() {
            continue;
        }
        script.push_str(&table(family, kind, &nets));
    }
    for chain in present(chains)? {
        if own_rules(&chain).await?.is_empty() {
            let Chain { family, table, name } = &chain;
            for direction in ["iifname", "oifname"] {
                script.push_str(&format!(
                    "insert rule {family} {table} {name} {direction} \"{INTERFACE_PREFIX}*\" counter accept comment \"{NAME}\"\n"
                ));
            }
        }
    }
    nftables::apply(&script).await?;
    for program in legacy {
        for direction in ["-i", "-o"] {
            let rule = legacy_rule(direction);
            if run(program, &arguments("-C", &rule), "").await.is_err() {
                run(program, &arguments("-I", &rule), "").await?;
            }
        }
    }
    Ok(())
}

/// Takes all of it away again; what is gone already is fine.
pub(super) async fn remove(chains: &[Chain], legacy: &[String]) -> Result<(), NetError> {
    let mut script = String::new();
    for family in ["ip", "ip6"] {
        // "delete" alone would fail where there is none.
        script.push_str(&format!("add table {family} {NAME}\ndelete table {family} {NAME}\n"));
    }
    for chain in present(chains)? {
        for handle in own_rules(&chain).await? {
            let Chain { family, table, name } = &chain;
            script.push_str(&format!("delete rule {family} {table} {name} handle {handle}\n"));
        }
    }
    nftables::apply(&script).await?;
    for program in legacy {
        for direction in ["-i", "-o"] {
            let rule = legacy_rule(direction);
            while run(program, &arguments("-C", &rule), "").await.is_ok() {
                run(program, &arguments("-D", &rule), "").await?;
            }
        }
    }
    Ok(())
}

/// Packets from a pool to anywhere else leave with the host's address.
fn table(family: &str, kind: &str, nets: &[String]) -> String {
    format!(
        "add table {family} {NAME}
delete table {family} {NAME}
table {family} {NAME} {{
  set pools {{ type {kind}; flags interval; elements = {{ {} }} }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    {family} saddr @pools {family} daddr != @pools masquerade
  }}
}}
",
        nets.join(", ")
    )
}

/// Those of `wanted` that are still there.
fn present(wanted: &[Chain]) -> Result<Vec<Chain>, NetError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<Chain> = chains()?.into_iter().map(Chain::from).collect();
    Ok(wanted.iter().filter(|chain| all.contains(chain)).cloned().collect())
}

/// Handles of our rules in a foreign chain.
async fn own_rules(chain: &Chain) -> Result<Vec<u64>, NetError> {
    let rules = list(&["-a", "list", "chain", &chain.family, &chain.table, &chain.name]).await?;
    let rules = rules.iter().filter_map(|object| object.get("rule"));
    Ok(rules.filter(|rule| rule["comment"] == NAME).filter_map(|rule| rule["handle"].as_u64()).collect())
}

fn legacy_rule(direction: &'static str) -> [String; 8] {
    let link = format!("{INTERFACE_PREFIX}+");
    [direction, &link, "-m", "comment", "--comment", NAME, "-j", "ACCEPT"].map(str::to_owned)
}

fn arguments<'a>(action: &'a str, rule: &'a [String]) -> Vec<&'a str> {
    ["-w", action, "FORWARD"].into_iter().chain(rule.iter().map(String::as_str)).collect()
}
