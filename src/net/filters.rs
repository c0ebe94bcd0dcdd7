//! Who filters forwarded packets on this host: the chains of Felix and of Docker, by netfilter's backends. Only read.

use std::collections::BTreeSet;

use super::nftables::{self, list};
use super::program::{locate, run};
use super::NetError;

/// What concerns forwarded packets of IPv4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Names of the tables of nft.
    pub tables: BTreeSet<String>,
    /// Names of the chains in the table `ip filter`, which is iptables' own.
    pub chains: BTreeSet<String>,
    /// Chains to which its FORWARD chain jumps.
    pub forward: BTreeSet<String>,
    /// Chains to which the FORWARD chain of the old iptables jumps; none where the kernel has no such table.
    pub legacy: Option<BTreeSet<String>>,
}

/// Reads them; root only.
pub async fn filters() -> Result<Filters, NetError> {
    let chains = nftables::chains().map_err(|error| NetError::Firewall {
        command: "the list of netfilter's chains".to_owned(),
        output: error.to_string(),
    })?;
    let mut filters = Filters::default();
    for chain in chains {
        if chain.family == "ip" && chain.table == "filter" {
            filters.chains.insert(chain.name);
        }
        filters.tables.insert(chain.table);
    }
    if filters.chains.contains("FORWARD") && locate("nft").is_some() {
        let rules = list(&["list", "chain", "ip", "filter", "FORWARD"]).await?;
        filters.forward = rules.iter().flat_map(targets).collect();
    }
    // Asked only where the kernel has the table already; asking would make it.
    let names = std::fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_or_default();
    if names.lines().any(|name| name == "filter") && locate("iptables-legacy").is_some() {
        let rules = run("iptables-legacy", &["-w", "-S", "FORWARD"], "").await?;
        filters.legacy = Some(legacy_targets(&rules));
    }
    Ok(filters)
}

/// Every chain that a rule in nft's JSON jumps to.
fn targets(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value.as_str()) {
                ("target", Some(name)) => vec![name.to_owned()],
                _ => targets(value),
            })
            .collect(),
        serde_json::Value::Array(items) => items.iter().flat_map(targets).collect(),
        _ => Vec::new(),
    }
}

fn legacy_targets(rules: &str) -> BTreeSet<String> {
    let target = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "-j");
        words.nth(1).map(str::to_owned)
    };
    rules.lines().filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_found_in_both_forms() {
        let rule = serde_json::json!({"rule": {"expr": [
            {"match": {"left": {"meta": {"key": "oifname"}}, "right": "docker0"}},
            {"jump": {"target": "cali-FORWARD"}},
        ]}});
        assert_eq!(targets(&rule), ["cali-FORWARD"]);
        let rules = "-P FORWARD DROP\n-A FORWARD -m comment --comment \"x\" -j cali-FORWARD\n-A FORWARD -j DOCKER-USER\n";
        assert_eq!(legacy_targets(rules), BTreeSet::from(["cali-FORWARD", "DOCKER-USER"].map(str::to_owned)));
    }
}
