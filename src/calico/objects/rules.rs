//! Rules of profiles in calicoctl's classic words, and back: `allow tcp from ports 1:2 tag web to 10.0.0.0/8`.
//!
//! ```text
//!  ACTION [PROTOCOL [type N [code M]]] [from PEER] [to PEER]      PEER: [ports P,P:P] [tag T] [[cidr] CIDR]
//! ```
//!
//! A tag is the label that the profile of that name gives its endpoints. Calico's rules can say more than these words:
//! such a rule has no classic form, and the words never stand for a part of a rule.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{json, Map, Value};

use super::super::profile;
use super::Object;

const ACTIONS: [(&str, &str); 2] = [("allow", "Allow"), ("deny", "Deny")];
const PROTOCOLS: [(&str, &str); 6] = [
    ("tcp", "TCP"),
    ("udp", "UDP"),
    ("sctp", "SCTP"),
    ("icmp", "ICMP"),
    ("icmpv6", "ICMPv6"),
    ("udplite", "UDPLite"),
];
/// Protocols that Calico allows ports with.
const WITH_PORTS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const LAST_ICMP_TYPE: u8 = 254;
const LONGEST_PORT_NAME: usize = 128;

/// What the tags of rules stand for: the labels that the profiles apply.
#[derive(Debug, Clone, Default)]
pub struct Tags {
    /// The label, key and value, that stands for each profile that applies one.
    main: BTreeMap<String, (String, String)>,
    /// Keys of all labels that any profile applies.
    applied: BTreeSet<String>,
}

impl Tags {
    /// The tags of these profiles; a profile that cannot be read has none.
    pub fn of(profiles: &[Object]) -> Self {
        let mut tags = Self::default();
        for profile in profiles {
            let labels = labels_to_apply(profile);
            tags.main.extend(main_label(&profile.name, &labels).map(|label| (profile.name.clone(), label)));
            tags.applied.extend(labels.into_keys());
        }
        tags
    }

    /// The selector that a tag stands for; none where no profile applies such a label.
    fn selector(&self, tag: &str) -> Option<String> {
        let (key, value) = self.label(tag);
        self.applied.contains(&key).then(|| selector_of(&key, &value))
    }

    /// The tag whose selector this is.
    fn tag(&self, selector: &str) -> Option<String> {
        let named = self.main.iter().find(|(_, (key, value))| selector_of(key, value) == selector);
        named.map(|(tag, _)| tag.clone()).or_else(|| {
            let tag = selector.strip_prefix("has(")?.strip_suffix(')')?.strip_prefix(profile::MEMBERSHIP)?;
            (self.selector(tag).as_deref() == Some(selector)).then(|| tag.to_owned())
        })
    }

    /// Key and value of the label that a profile has to apply so that a rule's `tag T` means its endpoints.
    pub(super) fn label(&self, tag: &str) -> (String, String) {
        let own = || (profile::membership_label(tag), String::new());
        self.main.get(tag).cloned().unwrap_or_else(own)
    }

    /// The tag that a label stands for; the label itself where it is no tag.
    pub fn name(&self, key: &str, value: &str) -> String {
        let label = || match value {
            "" => key.to_owned(),
            value => format!("{key}={value}"),
        };
        self.tag(&selector_of(key, value)).unwrap_or_else(label)
    }
}

/// The labels that a profile gives its endpoints.
pub(super) fn labels_to_apply(profile: &Object) -> BTreeMap<String, String> {
    let labels = profile.value.pointer("/spec/labelsToApply").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| match value {
        Value::Null => Some((key.clone(), String::new())),
        value => Some((key.clone(), value.as_str()?.to_owned())),
    };
    labels.into_iter().flatten().filter_map(text).collect()
}

/// The label that stands for membership in the profile: ours, the CNI plugin's, else the first.
fn main_label(name: &str, labels: &BTreeMap<String, String>) -> Option<(String, String)> {
    let ours = profile::membership_label(name);
    let known = [ours.as_str(), name].into_iter().find_map(|key| labels.get_key_value(key));
    let (key, value) = known.or_else(|| labels.iter().next())?;
    Some((key.clone(), value.clone()))
}

fn selector_of(key: &str, value: &str) -> String {
    match value {
        "" => format!("has({key})"),
        // A label's value has no quotes.
        value => format!("{key} == '{value}'"),
    }
}

/// The rule in classic words; none where they do not say all that the rule says.
pub fn classic(rule: &Value, tags: &Tags) -> Option<String> {
    let rule = rule.as_object()?;
    let known = ["action", "protocol", "icmp", "source", "destination"];
    if rule.iter().any(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
        return None;
    }
    let action = rule.get("action")?.as_str()?;
    let mut words = vec![ACTIONS.iter().find(|(_, calicos)| *calicos == action)?.0.to_owned()];
    let protocol = present(rule, "protocol");
    if let Some(protocol) = protocol {
        let protocol = protocol.as_str()?;
        words.push(PROTOCOLS.iter().find(|(_, calicos)| *calicos == protocol)?.0.to_owned());
    }
    if let Some(icmp) = present(rule, "icmp") {
        protocol?.as_str().filter(|protocol| protocol.starts_with("ICMP"))?;
        words.extend(classic_icmp(icmp.as_object()?)?);
    }
    for (word, field) in [("from", "source"), ("to", "destination")] {
        let Some(peer) = present(rule, field) else { continue };
        let peer = classic_peer(peer.as_object()?, tags)?;
        if !peer.is_empty() {
            words.push(word.to_owned());
            words.extend(peer);
        }
    }
    Some(words.join(" "))
}

fn present<'a>(object: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

fn classic_icmp(icmp: &Map<String, Value>) -> Option<Vec<String>> {
    if icmp.keys().any(|key| !["type", "code"].contains(&key.as_str())) {
        return None;
    }
    let mut words = Vec::new();
    for field in ["type", "code"] {
        match present(icmp, field) {
            Some(number) => words.extend([field.to_owned(), number.as_u64()?.to_string()]),
            // A code without a type has no classic form.
            None if field == "type" && present(icmp, "code").is_some() => return None,
            None => {}
        }
    }
    Some(words)
}

fn classic_peer(peer: &Map<String, Value>, tags: &Tags) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for (field, value) in peer {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value == "";
        if !is_empty && !["ports", "selector", "nets"].contains(&field.as_str()) {
            return None;
        }
    }
    if let Some(ports) = present(peer, "ports").and_then(Value::as_array).filter(|ports| !ports.is_empty()) {
        let port = |port: &Value| match port {
            Value::Number(number) => Some(number.to_string()),
            // Another text than a name or a range is left as it is found.
            Value::String(text) => parse_port(text).ok().map(|_| text.clone()),
            _ => None,
        };
        let ports: Option<Vec<String>> = ports.iter().map(port).collect();
        words.extend(["ports".to_owned(), ports?.join(",")]);
    } else if present(peer, "ports").is_some_and(|ports| !ports.is_array()) {
        return None;
    }
    if let Some(selector) = present(peer, "selector").filter(|selector| *selector != "") {
        words.extend(["tag".to_owned(), tags.tag(selector.as_str()?.trim())?]);
    }
    if let Some(nets) = present(peer, "nets") {
        match nets.as_array()?.as_slice() {
            [] => {}
            [net] => words.push(net.as_str()?.to_owned()),
            _ => return None,
        }
    }
    Some(words)
}

/// A rule as Calico keeps it, from classic words. The error says which word is wrong.
pub fn parse(words: &[String], tags: &Tags) -> Result<Value, String> {
    let mut words = Words { rest: words, tags };
    let word = words.next("a rule begins with allow or deny")?;
    let action = ACTIONS.iter().find(|(own, _)| *own == word);
    let (_, action) = *action.ok_or_else(|| format!("a rule begins with allow or deny, not '{word}'"))?;
    let mut rule = Map::from_iter([("action".to_owned(), Value::from(action))]);
    let mut protocol = None;
    if let Some((_, calicos)) = words.peek().and_then(|word| PROTOCOLS.iter().find(|(own, _)| *own == word)) {
        words.skip();
        protocol = Some(*calicos);
        rule.insert("protocol".to_owned(), (*calicos).into());
    }
    if let Some(icmp) = words.icmp(protocol)? {
        rule.insert("icmp".to_owned(), icmp);
    }
    let mut family = None;
    for (word, field) in [("from", "source"), ("to", "destination")] {
        let peer = match words.peek() == Some(word) {
            true => words.skip().peer(word, protocol, &mut family)?,
            false => Map::new(),
        };
        rule.insert(field.to_owned(), peer.into());
    }
    match words.peek() {
        None => Ok(rule.into()),
        Some(word) => Err(format!(
            "'{word}' is not expected here; a rule is: allow|deny [tcp|udp|sctp|icmp|icmpv6|udplite] [type N [code M]] [from [ports P] [tag T] [CIDR]] [to [ports P] [tag T] [CIDR]]"
        )),
    }
}

struct Words<'a> {
    rest: &'a [String],
    tags: &'a Tags,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.rest.first().map(String::as_str)
    }

    fn skip(&mut self) -> &mut Self {
        self.rest = self.rest.get(1..).unwrap_or_default();
        self
    }

    fn next(&mut self, missing: &str) -> Result<&'a str, String> {
        let word = self.peek().ok_or_else(|| missing.to_owned())?;
        self.skip();
        Ok(word)
    }

    /// `type N [code M]`.
    fn icmp(&mut self, protocol: Option<&str>) -> Result<Option<Value>, String> {
        if self.peek() != Some("type") {
            return Ok(None);
        }
        if !protocol.is_some_and(|protocol| protocol.starts_with("ICMP")) {
            return Err("'type' needs the protocol icmp or icmpv6 before it".to_owned());
        }
        self.skip();
        let mut icmp = json!({"type": self.number("type", LAST_ICMP_TYPE)?});
        if self.peek() == Some("code") {
            self.skip();
            icmp["code"] = self.number("code", u8::MAX)?.into();
        }
        Ok(Some(icmp))
    }

    fn number(&mut self, field: &str, last: u8) -> Result<u8, String> {
        let word = self.next(&format!("a number is missing after '{field}'"))?;
        let number = word.parse().ok().filter(|number| *number <= last);
        number.ok_or_else(|| format!("'{word}' after '{field}' is not a number from 0 to {last}"))
    }

    /// What comes after `from` or `to`, in any order, each once.
    fn peer(
        &mut self,
        word: &str,
        protocol: Option<&str>,
        family: &mut Option<bool>,
    ) -> Result<Map<String, Value>, String> {
        let (mut nets, mut selector, mut ports) = (None, None, None);
        loop {
            match self.peek() {
                Some("ports") if ports.is_none() => {
                    if !protocol.is_some_and(|protocol| WITH_PORTS.contains(&protocol)) {
                        return Err("ports need the protocol tcp, udp or sctp".to_owned());
                    }
                    let list = self.skip().next("a port is missing after 'ports'")?;
                    ports = Some(list.split(',').map(parse_port).collect::<Result<Vec<Value>, String>>()?);
                }
                Some("tag") if selector.is_none() => {
                    let tag = self.skip().next("a profile's name is missing after 'tag'")?;
                    selector = Some(self.tags.selector(tag).ok_or_else(|| {
                        format!("tag {tag}: no profile of this name applies a label; create it with `profile add {tag}`")
                    })?);
                }
                Some(text) if nets.is_none() && (text == "cidr" || text.contains(['.', ':', '/'])) => {
                    let text = match text {
                        "cidr" => self.skip().next("a network is missing after 'cidr'")?,
                        text => {
                            self.skip();
                            text
                        }
                    };
                    nets = Some(net(text, family)?);
                }
                _ => break,
            }
        }
        let mut peer = Map::new();
        peer.extend(nets.map(|net| ("nets".to_owned(), json!([net]))));
        peer.extend(selector.map(|selector| ("selector".to_owned(), selector.into())));
        peer.extend(ports.map(|ports| ("ports".to_owned(), ports.into())));
        match peer.is_empty() {
            true => Err(format!("'{word}' needs ports, a tag or a network behind it")),
            false => Ok(peer),
        }
    }
}

/// A network without host bits; all of a rule are of one family.
fn net(text: &str, family: &mut Option<bool>) -> Result<String, String> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let net: IpNet = text
        .parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| format!("'{text}' is not a network such as 10.0.0.0/8"))?;
    let is_v4 = net.addr().is_ipv4();
    if family.replace(is_v4).is_some_and(|other| other != is_v4) {
        return Err("Calico refuses a rule with networks of both IPv4 and IPv6: make two rules".to_owned());
    }
    Ok(net.trunc().to_string())
}

/// `80`, `1:2` or the name of a port.
fn parse_port(text: &str) -> Result<Value, String> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    if let Some((first, last)) = text.split_once(':') {
        let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
        return match range {
            Some((first, last)) => Ok(format!("{first}:{last}").into()),
            None => Err(format!("'{text}' is not a range of ports such as 8000:8080")),
        };
    }
    let is_name = text.len() <= LONGEST_PORT_NAME
        && text.chars().any(|c| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    match number(text) {
        Some(port) => Ok(port.into()),
        None if is_name => Ok(text.into()),
        None => {
            let range = text.replace('-', ":");
            let range = if text.contains('-') && parse_port(&range).is_ok() { &range } else { "8000:8080" };
            Err(format!("'{text}' is not a port from 1 to 65535, a range such as {range}, or a port's name"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Kind;
    use super::*;

    fn tags() -> Tags {
        let profile =
            |name: &str, labels: Value| Object::new(Kind::Profile, name, json!({"labelsToApply": labels}));
        Tags::of(&[
            profile("web", json!({"mesos-profile/web": "", "mesos-profile/old": ""})),
            profile("cni", json!({"cni": ""})),
            profile("rack", json!({"rack": "r1"})),
            profile("none", json!({})),
            profile("broken", json!(7)),
        ])
    }

    fn parsed(text: &str) -> Result<Value, String> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), &tags())
    }

    #[test]
    fn classic_words_become_calicos_rule_and_back() {
        for (text, rule) in [
            ("allow", json!({"action": "Allow", "source": {}, "destination": {}})),
            (
                "deny tcp from ports 1:2,80,http tag web 10.0.0.0/8 to ports 443",
                json!({"action": "Deny", "protocol": "TCP",
                    "source": {"nets": ["10.0.0.0/8"], "selector": "has(mesos-profile/web)", "ports": ["1:2", 80, "http"]},
                    "destination": {"ports": [443]}}),
            ),
            (
                "allow icmp type 8 code 0 from tag cni",
                json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8, "code": 0},
                    "source": {"selector": "has(cni)"}, "destination": {}}),
            ),
            (
                "allow udp to tag rack fd00::/8",
                json!({"action": "Allow", "protocol": "UDP", "source": {},
                    "destination": {"nets": ["fd00::/8"], "selector": "rack == 'r1'"}}),
            ),
            (
                "allow from tag old",
                json!({"action": "Allow", "source": {"selector": "has(mesos-profile/old)"}, "destination": {}}),
            ),
        ] {
            assert_eq!(parsed(text).as_ref(), Ok(&rule), "{text}");
            assert_eq!(classic(&rule, &tags()).as_deref(), Some(text));
        }
        assert_eq!(parsed("allow from cidr 10.1.2.3").unwrap()["source"], json!({"nets": ["10.1.2.3/32"]}));
        assert_eq!(parsed("allow from 10.1.2.3/8").unwrap()["source"], json!({"nets": ["10.0.0.0/8"]}));
    }

    #[test]
    fn what_calico_would_refuse_is_refused() {
        for (text, reason) in [
            ("", "allow or deny"),
            ("permit", "not 'permit'"),
            ("allow from", "needs ports"),
            ("allow from ports 80", "need the protocol"),
            ("allow icmp from ports 80", "need the protocol"),
            ("allow tcp from ports 0", "from 1 to 65535"),
            ("allow tcp from ports 9:8", "not a range"),
            ("allow tcp from ports 65536", "from 1 to 65535"),
            ("allow tcp type 8", "needs the protocol icmp"),
            ("allow icmp type 255", "from 0 to 254"),
            ("allow icmp type", "number is missing"),
            ("allow from tag nowhere", "profile add nowhere"),
            ("allow from tag none", "applies a label"),
            ("allow from 10.0.0.0/33", "not a network"),
            ("allow from 10.0.0.0/8 to fd00::/8", "two rules"),
            ("allow from 10.0.0.0/8 11.0.0.0/8", "not expected"),
            ("allow to tag web from tag web", "not expected"),
            ("allow please", "'please' is not expected"),
        ] {
            let refused = parsed(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn rules_that_say_more_have_no_classic_form() {
        for rule in [
            json!({"action": "Log"}),
            json!({"action": "Allow", "ipVersion": 4}),
            json!({"action": "Allow", "protocol": 47}),
            json!({"action": "Allow", "protocol": "tcp"}),
            json!({"action": "Allow", "notProtocol": "TCP"}),
            json!({"action": "Allow", "metadata": {"annotations": {"a": "b"}}}),
            json!({"action": "Allow", "protocol": "ICMP", "icmp": {"code": 1}}),
            json!({"action": "Allow", "icmp": {"type": 1}}),
            json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8", "11.0.0.0/8"]}}),
            json!({"action": "Allow", "source": {"selector": "app == 'web'"}}),
            json!({"action": "Allow", "source": {"selector": "has(mesos-profile/gone)"}}),
            json!({"action": "Allow", "source": {"notPorts": [80]}}),
            json!({"action": "Allow", "source": {"ports": "80"}}),
            json!({"action": "Allow", "source": 7}),
            json!("Allow"),
            json!(null),
        ] {
            assert_eq!(classic(&rule, &tags()), None, "{rule}");
        }
        let nulls = json!({"action": "Allow", "protocol": null, "source": {"nets": null, "selector": "", "notNets": []}});
        assert_eq!(classic(&nulls, &tags()).as_deref(), Some("allow"));
    }

    #[test]
    fn a_label_is_named_as_the_rules_name_it() {
        let tags = tags();
        assert_eq!(tags.name("mesos-profile/web", ""), "web");
        assert_eq!(tags.name("mesos-profile/old", ""), "old");
        assert_eq!(tags.name("rack", "r1"), "rack");
        assert_eq!(
            (tags.name("other", ""), tags.name("zone", "a")),
            ("other".to_owned(), "zone=a".to_owned())
        );
        assert_eq!(
            (tags.label("cni").0, tags.label("new").0),
            ("cni".to_owned(), "mesos-profile/new".to_owned())
        );
    }

    proptest! {
        #[test]
        fn any_words_are_a_rule_that_reads_back_or_an_error(words in prop::collection::vec(prop::sample::select(vec![
            "allow", "deny", "tcp", "icmp", "from", "to", "ports", "80", "1:2", "tag", "web", "10.0.0.0/8", "fd00::/8", "cidr", "type", "8", "code", "\u{e9}",
        ]), 0..12)) {
            let text = words.join(" ");
            if let Ok(rule) = parsed(&text) {
                let words = classic(&rule, &tags()).expect("it came of classic words");
                prop_assert_eq!(parsed(&words), Ok(rule));
            }
        }

        #[test]
        fn no_record_panics(rule in crate::any_json::nested(
            prop_oneof![Just(json!(null)), Just(json!("TCP")), Just(json!(80)), Just(json!("Allow"))],
            prop::sample::select(vec!["action", "source", "ports", "nets", "selector", "icmp", "protocol"]).prop_map(str::to_owned),
        )) {
            let _ = classic(&rule, &tags());
        }
    }
}
