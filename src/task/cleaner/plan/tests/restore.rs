//! Living tasks of which the datastore lacks something, and those that hold their addresses.

use super::*;
use crate::calico::{Conflict, Holder, Lacking, Missing};

fn living(survey: &mut Survey, container: &ContainerId, lacking: Lacking) {
    survey.records.insert(container.clone(), SeenRecord::Living(Some(record(container))));
    survey.traces.insert(container.clone(), Trace { lacking: Some(lacking), ..Trace::default() });
}

fn held_by(container: &ContainerId, node: &str) -> Lacking {
    let holder = Holder {
        name: "ghost.1".into(),
        app: Some("/ghost".into()),
        node: Some(node.into()),
        handle: Some(container.handle()),
    };
    let conflict = Conflict { address: "10.0.0.70".parse().unwrap(), holder };
    Lacking { missing: vec![Missing::Endpoint], conflicts: vec![conflict] }
}

#[test]
fn what_the_datastore_has_lost_of_a_living_task_is_written_again() {
    let mut survey = survey();
    let missing = vec![
        Missing::Endpoint,
        Missing::Address("10.0.0.70".parse().unwrap()),
        Missing::Block("10.0.0.64/26".parse().unwrap()),
        Missing::Affinity("10.0.0.64/26".parse().unwrap()),
        Missing::Handle,
        Missing::Profile("dev".into()),
    ];
    living(&mut survey, &id(1), Lacking { missing, conflicts: vec![] });
    // A Consul that does not answer is no reason to leave an address to others.
    survey.cannot("Consul", false, "refused".into());
    let plan = Plan::make(&survey, &REPORT);
    let why = "the datastore has lost it, and cart.5f3cbe01 lives";
    assert_eq!(
        lines(&plan),
        [
            format!("restore endpoint mesos/cart.5f3cbe01/eth0: {why}"),
            format!("restore address 10.0.0.70: {why}"),
            format!("restore block 10.0.0.64/26: {why}"),
            format!("restore affinity 10.0.0.64/26: {why}"),
            format!("restore handle mesos.5f3cbe01: {why}"),
            format!("restore profile dev: {why}"),
        ]
    );
    assert!(plan.items.iter().all(|item| item.verdict.is_work()));
    assert_eq!((plan.restore, plan.conflicts, plan.remove), (vec![id(1)], vec![], vec![]));
}

#[test]
fn an_address_that_a_living_holder_has_is_a_conflict_and_nothing_else_is_written() {
    for (node, seen) in [
        ("elsewhere", None),
        (NODE, Some(SeenRecord::Living(Some(record(&id(2)))))),
        (NODE, Some(SeenRecord::Unreadable("newer".into()))),
    ] {
        let mut survey = survey();
        living(&mut survey, &id(1), held_by(&id(2), node));
        survey.records.extend(seen.map(|seen| (id(2), seen)));
        let plan = Plan::make(&survey, &REMOVE);
        let conflicts: Vec<&Item> =
            plan.items.iter().filter(|item| item.verdict == Verdict::Conflict).collect();
        let [conflict] = conflicts[..] else { panic!("{plan:#?}") };
        assert!(conflict.why.contains("cart.1 (cart)") && conflict.why.contains("ghost.1 (/ghost)"));
        assert!(plan.restore.is_empty() && plan.remove.is_empty(), "{plan:#?}");
        assert_eq!(plan.conflicts, [id(1)]);
    }
}

#[test]
fn a_holder_without_record_and_life_gives_way_whatever_its_age() {
    let mut survey = survey();
    living(&mut survey, &id(1), held_by(&id(2), NODE));
    survey.traces.insert(
        id(2),
        Trace {
            endpoint: Some(endpoint(Some(&id(2)), "10.0.0.70", Duration::ZERO)),
            addresses: vec![allocation(&id(2).handle(), "10.0.0.70", Duration::ZERO)],
            ..Trace::default()
        },
    );
    let plan = Plan::make(&survey, &REPORT);
    assert_eq!(
        lines(&plan),
        [
            "remove endpoint mesos/cart.5f3cbe02/eth0: in no journal, nothing of it lives: it gives way to cart.1",
            "release address 10.0.0.70: in no journal, nothing of it lives: it gives way to cart.1",
            "restore endpoint mesos/cart.5f3cbe01/eth0: the datastore has lost it, and cart.5f3cbe01 lives",
            "restore address 10.0.0.70: the datastore gives it to ghost.1 (/ghost) on agent-17, of which nothing lives",
        ]
    );
    assert_eq!((plan.restore, plan.remove), (vec![id(1)], vec![id(2)]));
}

#[test]
fn nothing_gives_way_for_a_task_that_another_conflict_blocks() {
    let mut survey = survey();
    let mut lacking = held_by(&id(2), NODE);
    lacking.conflicts.extend(held_by(&id(3), "elsewhere").conflicts);
    living(&mut survey, &id(1), lacking);
    survey.trace(id(2)).endpoint = Some(endpoint(Some(&id(2)), "10.0.0.70", Duration::ZERO));
    let plan = Plan::make(&survey, &REPORT);
    assert_eq!((plan.conflicts, plan.restore, plan.remove), (vec![id(1)], vec![], vec![]));
}

#[test]
fn a_holder_that_may_live_does_not_give_way() {
    let lives: [fn(&mut Survey); 6] = [
        |survey| survey.trace(id(2)).container = Some(container(ContainerState::Living, DAY)),
        |survey| survey.trace(id(2)).folder = Some(folder(true, DAY)),
        |survey| survey.trace(id(2)).veth = Some(id(2).interface()),
        |survey| survey.journal_since = None,
        |survey| survey.cannot("Docker", true, "refused".into()),
        |survey| {
            // It had a record when the survey began.
            survey.before.insert(id(2));
        },
    ];
    for (number, live) in lives.into_iter().enumerate() {
        let mut survey = survey();
        living(&mut survey, &id(1), held_by(&id(2), NODE));
        live(&mut survey);
        let plan = Plan::make(&survey, &REMOVE);
        assert_eq!((plan.conflicts, plan.remove), (vec![id(1)], vec![]), "{number}");
    }
}

#[test]
fn a_holder_whose_executor_is_dead_is_taken_down_first() {
    let mut survey = survey();
    living(&mut survey, &id(1), held_by(&id(2), NODE));
    survey.records.insert(id(2), SeenRecord::Dead(record(&id(2)), Death::Died));
    let plan = Plan::make(&survey, &REPORT);
    assert_eq!((plan.finish, plan.restore), (vec![id(2)], vec![id(1)]));
    assert!(plan.conflicts.is_empty());
}
