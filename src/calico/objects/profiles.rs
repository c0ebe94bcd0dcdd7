//! Profiles as an operator makes, changes and removes them.

use std::collections::BTreeMap;

use serde_json::{json, Map, Value};

use super::super::{keys, profile, txn::Range, CalicoError, Datastore};
use super::rules::{classic, labels_to_apply, Tags};
use super::{Damaged, Edit, Edited, EndpointFilter, Kind, Object};
use crate::names;

/// How alike a name has to be to be suggested.
const SIMILAR: f64 = 0.8;
/// Endpoints that a message names.
const MOST_NAMED: usize = 5;

/// Why a profile or an endpoint's list of profiles was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Calico(#[from] CalicoError),
    #[error("there is no profile '{name}'{}", did_you_mean(.nearest))]
    Missing { name: String, nearest: Option<String> },
    #[error("there is no endpoint whose name, workload, task id, container id or address is '{text}' or begins with it{}", did_you_mean(.nearest))]
    NoEndpoint { text: String, nearest: Option<String> },
    #[error("'{text}' fits {} endpoints: {}; type more of it", .endpoints.len(), some_of(.endpoints))]
    Ambiguous { text: String, endpoints: Vec<String> },
    #[error("endpoint {endpoint} does not have the profile '{name}'; it has: {}", all_of(.profiles))]
    NotThere { name: String, endpoint: String, profiles: Vec<String> },
    #[error("the profile '{name}' is used by {} endpoints: {}; give them another with `endpoint E profile set` first", .endpoints.len(), some_of(.endpoints))]
    InUse { name: String, endpoints: Vec<String> },
    #[error("'{0}' is built into Calico and cannot be changed")]
    BuiltIn(String),
    #[error("the profile '{name}' has {count} {direction} rules; position {at} is not one of them")]
    NoRule { name: String, direction: RuleDirection, count: usize, at: usize },
    #[error("the profile '{name}' has no {direction} rule '{rule}'")]
    RuleNotThere { name: String, direction: RuleDirection, rule: String },
    #[error("the profile '{name}' has no tag '{tag}'; it has: {}", all_of(.tags))]
    NoTag { name: String, tag: String, tags: Vec<String> },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|nearest| format!("; did you mean '{nearest}'?")).unwrap_or_default()
}

fn all_of(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// The first few of many names, and how many there are besides.
pub(super) fn some_of(names: &[String]) -> String {
    let first = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len() > MOST_NAMED {
        true => format!("{first} and {} more", names.len() - MOST_NAMED),
        false => first,
    }
}

/// The name most like a text, if any is alike.
pub(super) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names::nearest(text, names, SIMILAR).map(str::to_owned)
}

/// Which way the packets of a rule go, seen from the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleDirection {
    Inbound,
    Outbound,
}

impl RuleDirection {
    fn field(self) -> &'static str {
        match self {
            Self::Inbound => "ingress",
            Self::Outbound => "egress",
        }
    }

    /// The rules of a profile in this direction, each as it stands in the record.
    pub fn rules(self, profile: &Object) -> Result<&[Value], Damaged> {
        match profile.value.get("spec").and_then(|spec| spec.get(self.field())) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(rules)) => Ok(rules),
            Some(_) => Err(Damaged {
                key: profile.key().to_owned(),
                reason: format!("spec.{} is not a list", self.field()),
            }),
        }
    }

    /// The rules of a profile's record that Calico cannot read, by their numbers, and why. With one of them Felix
    /// ignores the whole profile.
    pub fn unreadable(self, record: &Value) -> Vec<(usize, String)> {
        let rules = record.pointer(&format!("/spec/{}", self.field())).and_then(Value::as_array);
        let rules = rules.into_iter().flatten().enumerate();
        rules.filter_map(|(index, rule)| Some((index + 1, unreadable(rule)?))).collect()
    }
}

/// Why Calico cannot read a rule, if it cannot.
fn unreadable(rule: &Value) -> Option<String> {
    /// As far as types go wrong by hand; what is null is absent.
    #[derive(serde::Deserialize)]
    struct Readable {
        action: String,
        #[serde(rename = "source")]
        _source: Option<ReadablePeer>,
        #[serde(rename = "destination")]
        _destination: Option<ReadablePeer>,
    }
    #[derive(serde::Deserialize)]
    struct ReadablePeer {
        #[serde(rename = "nets")]
        _nets: Option<Vec<String>>,
        #[serde(rename = "notNets")]
        _not_nets: Option<Vec<String>>,
        #[serde(rename = "selector")]
        _selector: Option<String>,
        #[serde(rename = "ports")]
        _ports: Option<Vec<Value>>,
    }
    match serde_json::from_value::<Readable>(rule.clone()) {
        Ok(rule) if ["Allow", "Deny", "Log", "Pass"].contains(&rule.action.as_str()) => None,
        Ok(rule) => Some(format!("its action '{}' is not Allow, Deny, Log or Pass", rule.action)),
        Err(error) => Some(error.to_string()),
    }
}

impl std::fmt::Display for RuleDirection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// Which rule to remove.
#[derive(Debug, Clone, PartialEq)]
pub enum RulePlace {
    /// Counted from 1.
    At(usize),
    /// The first that is equal.
    Rule(Value),
}

/// All profiles.
#[derive(Debug, Clone, Default)]
pub struct ProfileList {
    pub found: Vec<Object>,
    pub damaged: Vec<Damaged>,
    pub tags: Tags,
}

impl ProfileList {
    /// The profile of this name.
    pub fn named(&self, name: &str) -> Result<&Object, ProfileError> {
        if let Some(found) = self.found.iter().find(|profile| profile.name == name) {
            return Ok(found);
        }
        let key = keys::profile(name);
        if let Some(damaged) = self.damaged.iter().find(|damaged| damaged.key == key) {
            return Err(CalicoError::from(damaged.clone()).into());
        }
        if profile::is_built_in(name) {
            return Err(ProfileError::BuiltIn(name.to_owned()));
        }
        let nearest = nearest(name, self.found.iter().map(|profile| profile.name.as_str()));
        Err(ProfileError::Missing { name: name.to_owned(), nearest })
    }
}

/// Whether Calico's programs can read the profile's rules and labels.
fn check_profile(object: &Object) -> Result<(), CalicoError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Readable {
        #[serde(default, rename = "ingress")]
        _ingress: Option<Vec<Map<String, Value>>>,
        #[serde(default, rename = "egress")]
        _egress: Option<Vec<Map<String, Value>>>,
        #[serde(default, rename = "labelsToApply")]
        _labels: Option<BTreeMap<String, String>>,
    }
    object.spec::<Readable>().map(drop).map_err(CalicoError::from)
}

impl Datastore {
    /// All profiles, without the one that is built into Calico.
    pub async fn profiles(&mut self) -> Result<ProfileList, CalicoError> {
        let objects = self.objects(Kind::Profile).await?;
        let mut damaged = objects.damaged;
        for profile in &objects.found {
            let rules =
                [RuleDirection::Inbound, RuleDirection::Outbound].map(|direction| direction.rules(profile));
            damaged.extend(rules.into_iter().filter_map(Result::err));
            for direction in [RuleDirection::Inbound, RuleDirection::Outbound] {
                damaged.extend(direction.unreadable(&profile.value).into_iter().map(|(number, why)| {
                    Damaged {
                        key: profile.key().to_owned(),
                        reason: format!("Felix ignores it: its {direction} rule {number}: {why}"),
                    }
                }));
            }
            let labels = profile.value.pointer("/spec/labelsToApply");
            if labels.is_some_and(|labels| !labels.is_object() && !labels.is_null()) {
                let reason = "spec.labelsToApply is not an object".to_owned();
                damaged.push(Damaged { key: profile.key().to_owned(), reason });
            }
        }
        Ok(ProfileList { tags: Tags::of(&objects.found), found: objects.found, damaged })
    }

    /// Refused where one of the profiles does not exist.
    pub(super) async fn require_profiles(&mut self, names: &[String]) -> Result<(), ProfileError> {
        let ranges: Vec<Range> = names.iter().map(|name| Range::Key(keys::profile(name))).collect();
        let answer = self.read(&ranges).await?;
        let missing = names.iter().zip(&answer.ranges);
        let mut missing = missing.filter(|(name, range)| range.is_empty() && !profile::is_built_in(name));
        // Felix does not see a damaged one, and drops what its endpoints send.
        for entry in answer.ranges.iter().flatten() {
            check_profile(&Object::read(Kind::Profile, entry).map_err(CalicoError::from)?)?;
        }
        match missing.next() {
            None => Ok(()),
            Some((name, _)) => self.profiles().await?.named(name).map(drop),
        }
    }

    /// Creates the profile as a launch would, unless it exists.
    pub async fn add_profile(&mut self, name: &str, dry_run: bool) -> Result<Edited, ProfileError> {
        profile::validate_name(name)?;
        if profile::is_built_in(name) {
            return Err(ProfileError::BuiltIn(name.to_owned()));
        }
        let spec = profile::new(name, &self.allow_nets, String::new(), String::new()).spec;
        let new = Object::new(Kind::Profile, name, json!(spec));
        self.edit(Kind::Profile, name, dry_run, |old| {
            Ok(match old {
                Some(_) => Edit::Keep,
                None => Edit::Put(new.clone()),
            })
        })
        .await
    }

    /// Removes a profile that no endpoint names.
    ///
    /// A launch rests on its profiles being as it read them, so that none names the profile once it is gone. One that
    /// came between the look and the removal is seen afterwards: then the profile is written again as it was.
    pub async fn remove_profile(&mut self, name: &str, dry_run: bool) -> Result<Edited, ProfileError> {
        self.profiles().await?.named(name)?;
        self.refuse_used(name).await?;
        let edited = self.edit(Kind::Profile, name, dry_run, |_| Ok::<_, ProfileError>(Edit::Delete)).await?;
        if let (Some(before), false) = (&edited.before, dry_run) {
            if let Err(used) = self.refuse_used(name).await {
                self.edit(Kind::Profile, name, false, |there| {
                    let mut again = Object::new(Kind::Profile, name, Value::Null);
                    again.value = before.clone();
                    Ok::<_, ProfileError>(if there.is_some() { Edit::Keep } else { Edit::Put(again) })
                })
                .await?;
                return Err(used);
            }
        }
        Ok(edited)
    }

    async fn refuse_used(&mut self, name: &str) -> Result<(), ProfileError> {
        let filter = EndpointFilter { profile: Some(name.to_owned()), ..EndpointFilter::default() };
        let endpoints = self.endpoint_records(&filter).await?.found;
        if endpoints.is_empty() {
            return Ok(());
        }
        let endpoints = endpoints.iter().map(|endpoint| endpoint.shown().to_owned()).collect();
        Err(ProfileError::InUse { name: name.to_owned(), endpoints })
    }

    /// Adds a rule before the one at a position, else as the last; not again where it is there and no position given.
    pub async fn add_rule(
        &mut self,
        name: &str,
        direction: RuleDirection,
        at: Option<usize>,
        rule: &Value,
        dry_run: bool,
    ) -> Result<Edited, ProfileError> {
        self.edit_rules(name, direction, dry_run, |rules, tags| {
            match at {
                None if find(rules, rule, tags).is_some() => {}
                None => rules.push(rule.clone()),
                Some(at) if (1..=rules.len() + 1).contains(&at) => rules.insert(at - 1, rule.clone()),
                Some(at) => {
                    return Err(ProfileError::NoRule {
                        name: name.to_owned(),
                        direction,
                        count: rules.len(),
                        at,
                    })
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes one rule; the others stay as they are.
    pub async fn remove_rule(
        &mut self,
        name: &str,
        direction: RuleDirection,
        place: &RulePlace,
        dry_run: bool,
    ) -> Result<Edited, ProfileError> {
        self.edit_rules(name, direction, dry_run, |rules, tags| {
            let index = match place {
                RulePlace::At(at) if (1..=rules.len()).contains(at) => at - 1,
                RulePlace::At(at) => {
                    let count = rules.len();
                    return Err(ProfileError::NoRule { name: name.to_owned(), direction, count, at: *at });
                }
                RulePlace::Rule(rule) => {
                    find(rules, rule, tags).ok_or_else(|| ProfileError::RuleNotThere {
                        name: name.to_owned(),
                        direction,
                        rule: classic(rule, tags).unwrap_or_else(|| rule.to_string()),
                    })?
                }
            };
            rules.remove(index);
            Ok(())
        })
        .await
    }

    async fn edit_rules(
        &mut self,
        name: &str,
        direction: RuleDirection,
        dry_run: bool,
        change: impl Fn(&mut Vec<Value>, &Tags) -> Result<(), ProfileError>,
    ) -> Result<Edited, ProfileError> {
        let profiles = self.profiles().await?;
        profiles.named(name)?;
        self.edit(Kind::Profile, name, dry_run, |old| {
            let mut object = old.ok_or_else(|| gone(name))?;
            let old = direction.rules(&object).map_err(CalicoError::from)?.to_vec();
            let mut rules = old.clone();
            change(&mut rules, &profiles.tags)?;
            if rules == old {
                return Ok(Edit::Keep);
            }
            object.spec_mut().insert(direction.field().to_owned(), rules.into());
            Ok(Edit::Put(object))
        })
        .await
    }

    /// Lets the profile apply the label that a tag stands for.
    pub async fn add_tag(&mut self, name: &str, tag: &str, dry_run: bool) -> Result<Edited, ProfileError> {
        profile::validate_name(tag)?;
        let profiles = self.profiles().await?;
        let (key, value) = profiles.tags.label(tag);
        self.edit_labels(name, &profiles, dry_run, |labels| {
            labels.insert(key.clone(), value.as_str().into());
            Ok(())
        })
        .await
    }

    /// Removes the label that a tag stands for, or the label of this key.
    pub async fn remove_tag(&mut self, name: &str, tag: &str, dry_run: bool) -> Result<Edited, ProfileError> {
        let profiles = self.profiles().await?;
        let (key, _) = profiles.tags.label(tag);
        let all: BTreeMap<String, String> = labels_to_apply(profiles.named(name)?);
        let all = all.iter().map(|(key, value)| profiles.tags.name(key, value)).collect();
        self.edit_labels(name, &profiles, dry_run, |labels| {
            let own = [key.as_str(), tag].into_iter().find(|key| labels.contains_key(*key));
            let own = own.map(str::to_owned).ok_or_else(|| ProfileError::NoTag {
                name: name.to_owned(),
                tag: tag.to_owned(),
                tags: Vec::clone(&all),
            })?;
            labels.shift_remove(&own);
            Ok(())
        })
        .await
    }

    async fn edit_labels(
        &mut self,
        name: &str,
        profiles: &ProfileList,
        dry_run: bool,
        change: impl Fn(&mut Map<String, Value>) -> Result<(), ProfileError>,
    ) -> Result<Edited, ProfileError> {
        profiles.named(name)?;
        self.edit(Kind::Profile, name, dry_run, |old| {
            let mut object = old.ok_or_else(|| gone(name))?;
            let mut labels = match object.value.pointer("/spec/labelsToApply") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(labels)) => labels.clone(),
                Some(_) => {
                    let reason = "spec.labelsToApply is not an object".to_owned();
                    return Err(CalicoError::Unreadable { key: object.key().to_owned(), reason }.into());
                }
            };
            change(&mut labels)?;
            object.spec_mut().insert("labelsToApply".to_owned(), labels.into());
            Ok(Edit::Put(object))
        })
        .await
    }
}

/// It was there a moment ago.
fn gone(name: &str) -> ProfileError {
    ProfileError::Missing { name: name.to_owned(), nearest: None }
}

/// Where the rule stands: an equal record, or one that the same classic words describe.
fn find(rules: &[Value], rule: &Value, tags: &Tags) -> Option<usize> {
    let words = classic(rule, tags);
    let is_same = |own: &Value| own == rule || (words.is_some() && classic(own, tags) == words);
    rules.iter().position(is_same)
}

impl ProfileList {
    /// Whether endpoints of this profile have none in truth: it neither exists nor is built in.
    pub fn is_missing(&self, name: &str) -> bool {
        matches!(self.named(name), Err(ProfileError::Missing { .. }))
    }

    /// The tags of a profile: every label that it applies, as rules name it.
    pub fn tags_of(&self, profile: &Object) -> Vec<String> {
        labels_to_apply(profile).iter().map(|(key, value)| self.tags.name(key, value)).collect()
    }
}
