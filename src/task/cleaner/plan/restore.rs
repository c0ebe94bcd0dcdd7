//! Decides what is to be done for a living task of which the datastore has lost something.
//!
//! What is missing is written again, except for an address that something else holds by now: the report names both, and
//! the operator decides. Two kinds of holders give way: one whose executor is dead, which this run takes down anyway,
//! and an allocation of this host whose task is in no journal and does not live. Such allocations come back with a
//! datastore that is restored from a backup.

use crate::calico::{Conflict, Missing};
use crate::names::{ContainerId, ENDPOINT, ORCHESTRATOR};
use crate::task::cleaner::seen::{SeenRecord, Trace};

use super::{item, short, Item, ItemKind, Planner, Verdict};

/// What becomes of the holder of a living task's address.
enum Holder {
    /// Its record is taken down before anything is written again.
    Ends,
    /// Nothing of it lives, and no record names it.
    GivesWay(ContainerId),
    Stays,
}

impl Planner<'_> {
    pub(super) fn lacking(&mut self, container: &ContainerId, trace: &Trace) {
        let Some(lacking) = &trace.lacking else { return };
        let task = match self.survey.records.get(container) {
            Some(SeenRecord::Living(Some(record))) => record.identity.clone(),
            _ => return,
        };
        let workload = short(&task.workload, container);
        let mut items: Vec<Item> =
            lacking.missing.iter().map(|missing| self.missing(missing, container, &workload)).collect();
        let (mut yielding, mut blocked) = (Vec::new(), Vec::new());
        for conflict in &lacking.conflicts {
            let named = item(Verdict::Restore, ItemKind::Address, conflict.address.to_string(), container);
            let holder = &conflict.holder;
            match self.holder(conflict) {
                Holder::Ends => items.push(Item {
                    why: format!("the datastore gives it to {holder}, whose executor is dead"),
                    ..named
                }),
                Holder::GivesWay(other) => {
                    yielding.push(other);
                    items.push(Item {
                        why: format!("the datastore gives it to {holder}, of which nothing lives"),
                        ..named
                    });
                }
                Holder::Stays => blocked.push(Item {
                    verdict: Verdict::Conflict,
                    why: format!(
                        "{} ({}) lives here with it, and the datastore gives it to {holder}: end one of them",
                        task.task_id, task.app
                    ),
                    ..named
                }),
            }
        }
        match blocked.is_empty() {
            true => {
                yielding.iter().for_each(|other| self.give_way(other, &task.task_id));
                self.plan.restore.push(container.clone());
                self.plan.items.extend(items);
            }
            false => {
                self.plan.conflicts.push(container.clone());
                self.plan.items.extend(blocked);
            }
        }
    }

    fn missing(&self, missing: &Missing, container: &ContainerId, workload: &str) -> Item {
        let (kind, name) = match missing {
            Missing::Endpoint => (ItemKind::Endpoint, format!("{ORCHESTRATOR}/{workload}/{ENDPOINT}")),
            Missing::Address(address) => (ItemKind::Address, address.to_string()),
            Missing::Block(cidr) => (ItemKind::Block, cidr.to_string()),
            Missing::Affinity(cidr) => (ItemKind::Affinity, cidr.to_string()),
            Missing::Handle => (ItemKind::Handle, short(&container.handle(), container)),
            Missing::Profile(name) => (ItemKind::Profile, name.clone()),
        };
        let why = format!("the datastore has lost it, and {workload} lives");
        Item { why, ..item(Verdict::Restore, kind, name, container) }
    }

    fn holder(&self, conflict: &Conflict) -> Holder {
        let survey = self.survey;
        let holder = &conflict.holder;
        let handle = holder.handle.as_deref().unwrap_or_default();
        let id = handle.strip_prefix(ORCHESTRATOR).and_then(|rest| rest.strip_prefix('.'));
        let Some(other) = id.and_then(|id| ContainerId::parse(id).ok()) else { return Holder::Stays };
        if holder.node.as_deref() != Some(survey.node.as_str()) {
            return Holder::Stays;
        }
        match survey.records.get(&other) {
            Some(SeenRecord::Dead(..)) => return Holder::Ends,
            Some(_) => return Holder::Stays,
            None if survey.before.contains(&other) => return Holder::Stays,
            None => {}
        }
        let nothing = Trace::default();
        match self.may_live(survey.traces.get(&other).unwrap_or(&nothing)) {
            Some(_) => Holder::Stays,
            None => Holder::GivesWay(other),
        }
    }

    /// All that is left of the holder goes, at any age: its endpoint shows the address as well.
    fn give_way(&mut self, other: &ContainerId, task: &str) {
        if self.plan.remove.contains(other) {
            return;
        }
        let trace = self.survey.traces.get(other).cloned().unwrap_or_default();
        let mut items = self.of(other, &short(&trace.workload(other), other), &trace);
        for item in &mut items {
            item.why = format!("in no journal, nothing of it lives: it gives way to {task}");
        }
        self.plan.remove.push(other.clone());
        self.plan.items.extend(items);
    }
}
