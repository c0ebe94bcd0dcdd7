//! Tiers and their policies, in the order in which Felix applies them, and how many endpoints each selects.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{json, Value};

use super::super::{selector, CalicoError, Datastore};
use super::endpoints::inherited;
use super::{Damaged, EndpointFilter, Kind, Object};

const DEFAULT_TIER: &str = "default";
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// Selectors over what only Kubernetes has: namespaces and service accounts.
const OF_KUBERNETES: [&str; 2] = ["/spec/namespaceSelector", "/spec/serviceAccountSelector"];

type Labels = BTreeMap<String, String>;

/// A tier with its policies.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTier {
    pub name: String,
    /// None: behind all that have one.
    pub order: Option<f64>,
    /// What happens to packets of an endpoint that a policy of the tier selects and no rule matches.
    pub default_action: String,
    /// Whether there is such a tier, and not only policies that name it.
    pub exists: bool,
    pub policies: Vec<PolicyRecord>,
}

/// A policy of a tier.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRecord {
    /// As calicoctl calls it.
    pub name: String,
    /// Of a NetworkPolicy.
    pub namespace: Option<String>,
    pub order: Option<f64>,
    pub selector: String,
    /// `Ingress`, `Egress`.
    pub types: Vec<String>,
    /// Workload endpoints that it selects; none where that cannot be said without Kubernetes.
    pub endpoints: Option<usize>,
    /// The same of host endpoints.
    pub hosts: Option<usize>,
    pub ingress: usize,
    pub egress: usize,
    /// The whole record.
    pub record: Value,
    pub(super) key: String,
    /// What decides between policies of the same order, as Calico 3.32 has it; before, the namespace came first.
    stored: String,
}

impl PolicyRecord {
    pub(super) fn read(object: Object) -> Result<(String, Self), Damaged> {
        let damaged =
            |reason: String| Damaged { key: object.key().to_owned(), reason: format!("spec.{reason}") };
        let spec = |field: &str| {
            object.value.get("spec").and_then(|spec| spec.get(field)).filter(|value| !value.is_null())
        };
        let text = |field: &str| match spec(field) {
            None => Ok(String::new()),
            Some(value) => {
                value.as_str().map(str::to_owned).ok_or_else(|| damaged(format!("{field} is not a text")))
            }
        };
        let rules = |field: &str| match spec(field) {
            None => Ok(0),
            Some(value) => {
                value.as_array().map(Vec::len).ok_or_else(|| damaged(format!("{field} is not a list")))
            }
        };
        let order = order(spec("order")).map_err(damaged)?;
        let (ingress, egress) = (rules("ingress")?, rules("egress")?);
        let types: Vec<String> = match spec("types") {
            None => Vec::new(),
            Some(types) => {
                serde_json::from_value(types.clone()).map_err(|error| damaged(format!("types: {error}")))?
            }
        };
        let selector = text("selector")?;
        selector::check(&selector).map_err(damaged)?;
        let tier = match text("tier")? {
            tier if tier.is_empty() => DEFAULT_TIER.to_owned(),
            tier => tier,
        };
        // calicoctl writes the types that the rules suggest; Felix knows only what is written.
        let types = match types.is_empty() {
            false => types,
            true => vec!["Ingress".to_owned(), "Egress".to_owned()],
        };
        let policy = Self {
            name: shown_name(&object, &tier),
            namespace: object.namespace.clone(),
            order,
            selector,
            types,
            endpoints: None,
            hosts: None,
            ingress,
            egress,
            stored: format!(
                "{}/{}/{}",
                object.name,
                object.namespace.as_deref().unwrap_or_default(),
                object.kind.word()
            ),
            key: object.key().to_owned(),
            record: object.value,
        };
        Ok((tier, policy))
    }

    /// Counts what it selects among the labels of workload endpoints and of host endpoints.
    fn count(&mut self, endpoints: &[Labels], hosts: &[Labels]) {
        let spec = |path: &str| self.record.pointer(path).filter(|value| !value.is_null() && *value != "");
        if OF_KUBERNETES.iter().any(|path| spec(path).is_some()) {
            return;
        }
        let flag = |path: &str| spec(path) == Some(&Value::Bool(true));
        let for_hosts_only = flag("/spec/doNotTrack") || flag("/spec/preDNAT");
        let namespace = self.namespace.as_ref();
        let Ok(selector) = selector::parse(&self.selector) else { return };
        let selects = |labels: &&Labels| {
            namespace.is_none_or(|namespace| labels.get(NAMESPACE_LABEL) == Some(namespace))
                && selector.selects(labels)
        };
        let of_hosts = hosts.iter().filter(selects).count();
        let of_endpoints = if for_hosts_only { 0 } else { endpoints.iter().filter(selects).count() };
        (self.endpoints, self.hosts) = (Some(of_endpoints), Some(of_hosts));
    }
}

/// Calico 3.29 and 3.31 store `default.NAME` for a policy of the tier default, and the name of its own in an annotation.
fn shown_name(object: &Object, tier: &str) -> String {
    let annotation = object.value.pointer("/metadata/annotations/projectcalico.org~1metadata");
    let original: Option<Value> =
        annotation.and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
    let original = original.as_ref().and_then(|metadata| metadata.get("name")?.as_str());
    match original {
        Some(original) if !original.is_empty() => original.to_owned(),
        _ if tier == DEFAULT_TIER => object.name.strip_prefix("default.").unwrap_or(&object.name).to_owned(),
        _ => object.name.clone(),
    }
}

fn order(value: Option<&Value>) -> Result<Option<f64>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| "order is not a number".to_owned()),
    }
}

/// A number before none, else the smaller.
fn by_order(one: Option<f64>, other: Option<f64>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        (one, other) => one.is_none().cmp(&other.is_none()),
    }
}

impl PolicyTier {
    pub(super) fn read(object: &Object) -> Result<Self, Damaged> {
        let damaged =
            |reason: String| Damaged { key: object.key().to_owned(), reason: format!("spec.{reason}") };
        let action = object.value.pointer("/spec/defaultAction").and_then(Value::as_str);
        Ok(Self {
            name: object.name.clone(),
            order: order(object.value.pointer("/spec/order")).map_err(damaged)?,
            default_action: action.filter(|action| !action.is_empty()).unwrap_or("Deny").to_owned(),
            exists: true,
            policies: Vec::new(),
        })
    }

    /// Felix applies the policies of a tier that is missing all the same, behind all others.
    fn missing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            order: None,
            default_action: "Deny".to_owned(),
            exists: false,
            policies: Vec::new(),
        }
    }
}

/// Tiers and policies into Felix's order.
pub(super) fn sorted(tiers: Vec<PolicyTier>, policies: Vec<(String, PolicyRecord)>) -> Vec<PolicyTier> {
    let mut all: BTreeMap<String, PolicyTier> =
        tiers.into_iter().map(|tier| (tier.name.clone(), tier)).collect();
    for (tier, policy) in policies {
        all.entry(tier.clone()).or_insert_with(|| PolicyTier::missing(&tier)).policies.push(policy);
    }
    let mut tiers: Vec<PolicyTier> = all.into_values().collect();
    for tier in &mut tiers {
        tier.policies.sort_by(|one, other| {
            by_order(one.order, other.order).then_with(|| one.stored.cmp(&other.stored))
        });
    }
    tiers.sort_by(|one, other| {
        let existing = other.exists.cmp(&one.exists);
        existing.then(by_order(one.order, other.order)).then_with(|| one.name.cmp(&other.name))
    });
    tiers
}

impl Datastore {
    /// All tiers in order with all their policies in order, and what each selects. Records that cannot be read come
    /// beside them.
    pub async fn policies(&mut self) -> Result<(Vec<PolicyTier>, Vec<Damaged>), CalicoError> {
        let (mut tiers, mut damaged) = self.tiers().await?;
        if tiers.iter().any(|tier| !tier.policies.is_empty()) {
            let (endpoints, problems) = self.labels_of_endpoints().await?;
            damaged.extend(problems);
            let (hosts, problems) = self.labels_of_hosts().await?;
            damaged.extend(problems);
            let policies = tiers.iter_mut().flat_map(|tier| &mut tier.policies);
            policies.for_each(|policy| policy.count(&endpoints, &hosts));
        }
        Ok((tiers, damaged))
    }

    /// The same without what they select.
    pub(super) async fn tiers(&mut self) -> Result<(Vec<PolicyTier>, Vec<Damaged>), CalicoError> {
        let (mut tiers, mut policies, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let objects = self.objects(Kind::Tier).await?;
        damaged.extend(objects.damaged);
        for tier in &objects.found {
            match PolicyTier::read(tier) {
                Ok(tier) => tiers.push(tier),
                Err(problem) => damaged.push(problem),
            }
        }
        for kind in [Kind::GlobalNetworkPolicy, Kind::NetworkPolicy] {
            let objects = self.objects(kind).await?;
            damaged.extend(objects.damaged);
            for policy in objects.found {
                match PolicyRecord::read(policy) {
                    Ok(policy) => policies.push(policy),
                    Err(problem) => damaged.push(problem),
                }
            }
        }
        Ok((sorted(tiers, policies), damaged))
    }

    async fn labels_of_endpoints(&mut self) -> Result<(Vec<Labels>, Vec<Damaged>), CalicoError> {
        let applied = self.applied_labels().await?;
        let records = self.endpoint_records(&EndpointFilter::default()).await?;
        let labels = records.found.into_iter().map(|endpoint| endpoint.all_labels(&applied)).collect();
        Ok((labels, records.damaged))
    }

    async fn labels_of_hosts(&mut self) -> Result<(Vec<Labels>, Vec<Damaged>), CalicoError> {
        let applied = self.applied_labels().await?;
        let objects = self.objects(Kind::HostEndpoint).await?;
        let labels = |host: &Object| {
            let profiles = host.value.pointer("/spec/profiles").cloned().unwrap_or_else(|| json!([]));
            let profiles: Vec<String> = serde_json::from_value(profiles).unwrap_or_default();
            inherited(host.labels(), &profiles, &applied)
        };
        Ok((objects.found.iter().map(labels).collect(), objects.damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, spec: Value) -> (String, PolicyRecord) {
        PolicyRecord::read(Object::new(Kind::GlobalNetworkPolicy, name, spec)).unwrap()
    }

    #[test]
    fn tiers_and_policies_come_in_felixs_order() {
        let tier = |name: &str, spec: Value| PolicyTier::read(&Object::new(Kind::Tier, name, spec)).unwrap();
        let tiers = vec![
            tier("default", json!({"order": 1_000_000, "defaultAction": "Deny"})),
            tier("admin", json!({"order": 1000.0, "defaultAction": "Pass"})),
            tier("last", json!({})),
        ];
        let policies = vec![
            policy("default.b", json!({"order": 10})),
            policy("unordered", json!({})),
            policy("default.a", json!({"order": 10})),
            policy("first", json!({"order": 9.5})),
            policy("gone.x", json!({"tier": "gone"})),
            policy("admin.x", json!({"tier": "admin", "egress": [{}]})),
        ];
        let sorted = sorted(tiers, policies);
        let names =
            |tier: &PolicyTier| tier.policies.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>();
        let shown: Vec<(&str, Vec<String>)> =
            sorted.iter().map(|tier| (tier.name.as_str(), names(tier))).collect();
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            shown,
            [
                ("admin", list(&["admin.x"])),
                ("default", list(&["first", "a", "b", "unordered"])),
                ("last", list(&[])),
                ("gone", list(&["gone.x"])),
            ]
        );
        assert_eq!(sorted[0].policies[0].types, ["Ingress", "Egress"]);
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_damaged() {
        for spec in [
            json!({"order": "first"}),
            json!({"selector": 7}),
            json!({"selector": "app = 'web'"}),
            json!({"ingress": {}}),
            json!({"types": "Ingress"}),
            json!({"tier": []}),
        ] {
            let object = Object::new(Kind::GlobalNetworkPolicy, "x", spec.clone());
            assert!(PolicyRecord::read(object).is_err(), "{spec}");
        }
    }

    #[test]
    fn only_what_labels_decide_is_counted() {
        let labels = |app: &str| Labels::from([("app".to_owned(), app.to_owned())]);
        let (endpoints, hosts) = (vec![labels("web"), labels("db")], vec![labels("web")]);
        let counts = |spec: Value| {
            let (_, mut policy) = policy("x", spec);
            policy.count(&endpoints, &hosts);
            (policy.endpoints, policy.hosts)
        };
        assert_eq!(counts(json!({"selector": "app == 'web'"})), (Some(1), Some(1)));
        assert_eq!(counts(json!({})), (Some(2), Some(1)));
        assert_eq!(counts(json!({"preDNAT": true})), (Some(0), Some(1)));
        assert_eq!(counts(json!({"namespaceSelector": "all()"})), (None, None));
    }
}
