//! Policy sets that a seed decides: records as calicoctl would have them, of every kind that Felix applies.

use fastrand::Rng;
use ipnet::IpNet;
use serde_json::{json, Value};

/// Names of all that is generated begin with this.
pub const PREFIX: &str = "gen-";
/// The ports with a listener, by TCP and UDP.
pub const PORTS: [u16; 4] = [53, 80, 443, 5432];

/// What the records are about.
pub struct Places {
    /// Of the tasks.
    pub addresses: Vec<String>,
    pub outside: &'static str,
    pub host: &'static str,
}

/// A key below Calico's resources, and what stands there.
pub type CaseRecord = (String, Value);

/// Makes one set.
pub struct Maker<'a> {
    pub dice: Rng,
    pub places: &'a Places,
}

impl Maker<'_> {
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.dice.usize(..of.len())].clone()
    }

    /// Whether something with this chance, in percent, happens.
    fn chance(&mut self, percent: u8) -> bool {
        self.dice.u8(..100) < percent
    }

    /// All records of a set but the endpoints of tasks.
    pub fn records(&mut self) -> Vec<CaseRecord> {
        let mut records = vec![(
            "tiers/default".to_owned(),
            record("default", json!({"order": 1e6, "defaultAction": "Deny"})),
        )];
        for (tier, order) in [("gen-security", 100.0), ("gen-late", 2e6)] {
            let action = self.one(&["Deny", "Pass"]);
            records.push((
                format!("tiers/{tier}"),
                record(tier, json!({"order": order, "defaultAction": action})),
            ));
        }
        for number in 0..self.dice.usize(1..6) {
            records.push(self.policy(number));
        }
        for name in ["gen-a", "gen-b"] {
            let (ingress, egress) = (self.profile_rules(), self.profile_rules());
            let labels = self.one(&[json!({"team": "a"}), json!({"team": "b", "zone": "z"}), json!({})]);
            let spec = json!({"ingress": ingress, "egress": egress, "labelsToApply": labels});
            records.push((format!("profiles/{name}"), record(name, spec)));
        }
        let outside = json!([format!("{}/32", self.places.outside)]);
        let nets = self.one(&[outside.clone(), json!(["0.0.0.0/0"]), json!([self.places.addresses[0]])]);
        records.push((
            "globalnetworksets/gen-set".to_owned(),
            labelled("gen-set", json!({"place": "office"}), json!({"nets": nets})),
        ));
        let namespace = self.one(&["default", "other"]);
        let set = labelled("gen-own", json!({"place": "lab", "role": "api"}), json!({"nets": outside}));
        records.push((format!("networksets/{namespace}/gen-own"), of_namespace(namespace, set)));
        if self.chance(20) {
            let deny = json!([{"action": "Deny"}]);
            let spec = json!({"tier": "default", "order": 0, "selector": "all()", "types": ["Ingress", "Egress"],
                "ingress": deny, "egress": deny, "stagedAction": "Set"});
            records.push(("stagedglobalnetworkpolicies/gen-staged".to_owned(), record("gen-staged", spec)));
        }
        if self.chance(30) {
            let spec = json!({"node": "agent-1", "interfaceName": "up0", "expectedIPs": [self.places.host],
                "profiles": self.one(&[json!([]), json!(["gen-a"]), json!(["projectcalico-default-allow"])])});
            records.push((
                "hostendpoints/gen-host".to_owned(),
                labelled("gen-host", json!({"role": "host"}), spec),
            ));
        }
        records
    }

    /// What an endpoint's list of profiles becomes.
    pub fn profiles(&mut self) -> Value {
        let first = self.one(&["dev", "dev", "gen-a", "gen-b", "projectcalico-default-allow"]);
        let second = self.one(&["gen-a", "gen-b", "gen-missing", "dev"]);
        match self.dice.u8(..10) {
            0 => json!([]),
            1 => json!(["gen-missing", first]),
            2..=4 if second != first => json!([first, second]),
            _ => json!([first]),
        }
    }

    fn policy(&mut self, number: usize) -> CaseRecord {
        let tier = self.one(&["default", "default", "gen-security", "gen-late", "gen-gone"]);
        let selector = self.one(&[
            "all()",
            "role == 'web'",
            "role == 'db'",
            "role in {'web', 'api'}",
            "has(team)",
            "team == 'a' && role != 'db'",
            "!has(zone)",
            "role == 'host'",
            "",
        ]);
        let mut spec = json!({"tier": tier, "selector": selector});
        if self.chance(70) {
            spec["order"] = self.one(&[json!(1), json!(2), json!(2), json!(2.5), json!(10)]);
        }
        if self.chance(85) {
            spec["types"] = self.one(&[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
        }
        for way in ["ingress", "egress"] {
            let rules: Vec<Value> = (0..self.dice.usize(..4)).map(|_| self.rule(true)).collect();
            if !rules.is_empty() {
                spec[way] = rules.into();
            }
        }
        let name = format!("{PREFIX}{}{number}", self.one(&["p", "q"]));
        if self.chance(30) {
            let namespace = self.one(&["default", "default", "other"]);
            return (
                format!("networkpolicies/{namespace}/{name}"),
                of_namespace(namespace, record(&name, spec)),
            );
        }
        if self.chance(10) {
            spec["namespaceSelector"] =
                self.one(&[json!("all()"), json!("global()"), json!("!has(x)"), json!("x == 'y'")]);
        }
        if self.chance(5) {
            spec[self.one(&["preDNAT", "doNotTrack"])] = json!(true);
            spec["applyOnForward"] = json!(true);
            spec["selector"] = json!("role == 'web'");
            spec["types"] = json!(["Ingress"]);
            spec.as_object_mut().unwrap().remove("egress");
        }
        (format!("globalnetworkpolicies/{name}"), record(&name, spec))
    }

    fn profile_rules(&mut self) -> Vec<Value> {
        (0..self.dice.usize(..3)).map(|_| self.rule(false)).collect()
    }

    fn rule(&mut self, of_policy: bool) -> Value {
        let action = match self.dice.u8(..20) {
            0..=9 => "Allow",
            10..=14 => "Deny",
            15..=17 if of_policy => "Pass",
            18 => "Log",
            _ => "Allow",
        };
        let mut rule = json!({"action": action});
        let mut has_ports = false;
        match self.dice.u8(..12) {
            0..=3 => (rule["protocol"], has_ports) = (json!("TCP"), true),
            4..=5 => (rule["protocol"], has_ports) = (self.one(&[json!("UDP"), json!(17), json!(6)]), true),
            6 => {
                rule["protocol"] = json!("ICMP");
                match self.dice.u8(..5) {
                    0 => rule["icmp"] = json!({"type": 8}),
                    1 => rule["icmp"] = json!({"type": 8, "code": self.one(&[0, 1])}),
                    2 => rule["icmp"] = json!({"type": 3}),
                    3 => rule["notICMP"] = json!({"type": self.one(&[8, 3])}),
                    _ => {}
                }
            }
            7 => rule["notProtocol"] = self.one(&[json!("UDP"), json!("TCP"), json!("ICMP")]),
            _ => {}
        }
        if self.chance(10) {
            rule["ipVersion"] = self.one(&[json!(4), json!(4), json!(6)]);
        }
        for end in ["source", "destination"] {
            let mut peer = if self.chance(60) { self.peer() } else { json!({}) };
            if end == "destination" && has_ports && self.chance(70) {
                self.ports(&mut peer);
            } else if end == "destination"
                && !has_ports
                && rule.get("protocol").is_none()
                && rule.get("notProtocol").is_none()
                && self.chance(10)
            {
                peer["ports"] = json!(["sql"]);
            } else if end == "source" && has_ports && self.chance(10) {
                let field = self.one(&["ports", "notPorts"]);
                peer[field] = self.one(&[json!(["1024:65535"]), json!([80])]);
            }
            rule[end] = peer;
        }
        // calicoctl refuses both families in one rule.
        let text = rule.to_string();
        let has_v4 = ["/32\"", "/16\"", "/18\"", "/0\""].iter().any(|end| text.contains(end));
        let is_mixed = match rule["ipVersion"].as_u64() {
            Some(4) => text.contains("fd00"),
            Some(_) => has_v4,
            None => text.contains("fd00") && has_v4,
        };
        if is_mixed {
            return self.rule(of_policy);
        }
        rule
    }

    fn ports(&mut self, peer: &mut Value) {
        let list = self.one(&[
            json!([80]),
            json!([80, 443]),
            json!(["50:100"]),
            json!(["sql"]),
            json!(["sql", 80]),
            json!([5432, "1:60"]),
            json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 443]),
        ]);
        let field = self.one(&["ports", "ports", "notPorts"]);
        peer[field] = list;
    }

    fn peer(&mut self) -> Value {
        let mut peer = json!({});
        let selectors = [
            "role == 'web'",
            "role == 'api' || role == 'host'",
            "has(team)",
            "team == 'a'",
            "all()",
            "place == 'office'",
            "place == 'lab'",
            "!has(place)",
            "role starts with 'd'",
            "has(mesos-profile/dev)",
        ];
        if self.chance(50) {
            peer["selector"] = json!(self.one(&selectors));
        }
        if self.chance(15) {
            peer["notSelector"] = json!(self.one(&selectors));
        }
        if self.chance(10) {
            peer["namespaceSelector"] = self.one(&[
                json!("all()"),
                json!("global()"),
                json!("!has(team)"),
                json!("name == 'default'"),
            ]);
        }
        if self.chance(30) {
            peer["nets"] = self.nets();
        }
        if self.chance(20) {
            peer["notNets"] = self.nets();
        }
        peer
    }

    /// With their host bits cleared. One that is excluded and has all addresses is no mistake of this file: Felix has its
    /// own view of it.
    fn nets(&mut self) -> Value {
        let address = self.one(&self.places.addresses.clone());
        let net = |length| IpNet::new(address.parse().unwrap(), length).unwrap().trunc().to_string();
        self.one(&[
            json!([net(32)]),
            json!([net(32), format!("{}/32", self.places.outside)]),
            json!([net(18)]),
            json!(["10.99.0.0/16"]),
            json!(["0.0.0.0/0"]),
            json!(["fd00::/8"]),
        ])
    }
}

fn of_namespace(namespace: &str, mut record: Value) -> Value {
    record["metadata"]["namespace"] = json!(namespace);
    record
}

fn record(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn labelled(name: &str, labels: Value, spec: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "spec": spec})
}
