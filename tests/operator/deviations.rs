//! Records written by hand, each with one thing different from what Calico writes: no command panics, hides the rest,
//! or passes over the damage. The fixture also has how many problems calicoctl 3.29 counts in each.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::datastore::World;
use crate::desk::{Desk, Said};

const ADDRESS: &str = "10.65.0.0";

#[derive(Deserialize)]
struct Deviation {
    name: String,
    /// Those of calicoctl; none where it gives up.
    problems: Option<usize>,
    put: BTreeMap<String, String>,
    delete: Vec<String>,
}

fn deviations() -> Vec<Deviation> {
    let text = include_str!("../fixtures/calico/deviations.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What our check finds beyond calicoctl's, by a part of the line.
fn beyond(name: &str) -> &'static [&'static str] {
    match name {
        "wep-ct-bad" => &["/workloadendpoints/default/host1-mesos-web.1-eth0 its creationTimestamp"],
        "wep-ct-number" | "wep-profiles-string" => {
            &["/workloadendpoints/default/host1-mesos-web.1-eth0 invalid type"]
        }
        "wep-ip-29" => &["/host1-mesos-web.1-eth0 10.65.0.0/29 is a network"],
        "wep-ip-bad" => &["/host1-mesos-web.1-eth0 '10.65.0.x/32' is not an address", "10.65.0.0 leaked"],
        "handle-missing" => {
            &["mesos.00000001-77aa-4d1b-8b0e-0c1f2a3b4c5d is in use in a block but doesn't exist"]
        }
        "handle-count-wrong" => &["counts 5 in the block 10.65.0.0/29, which has 1"],
        "handle-dash-cidr" => &["names '10.65.0.0-29'", "counts 0 in the block 10.65.0.0/29, which has 1"],
        "handle-slash" => &[
            "/handle/mesos/00000001-77aa-4d1b-8b0e-0c1f2a3b4c5d a handle's id cannot have a slash",
            "mesos/00000001-77aa-4d1b-8b0e-0c1f2a3b4c5d is in use in a block but doesn't exist",
        ],
        "block-number-attr" | "block-seq-float" | "block-seq-string" => {
            &["/ipv4/block/10.65.0.0-29 invalid type"]
        }
        "block-affinity-bare" => &["'host1' does not begin with 'host:'", "the block belongs to no node"],
        "block-no-affinity-key" => &["/host/host1/ipv4/block/10.65.0.0-29 the block belongs to no node"],
        "block-short-allocations" => &["it has 4 allocations, not 8"],
        "block-unallocated-missing-one" => &["10.65.0.7 is free and not in its unallocated list"],
        "block-unallocated-dup" => &["10.65.0.3 is in its unallocated list 2 times"],
        "block-allocated-in-unallocated" => &["10.65.0.0 is allocated and in its unallocated list"],
        "block-attr-index-bad" => {
            &["an allocation names attribute 3 of 1", "no allocation names its attribute 0"]
        }
        "block-attr-unreferenced" => &["no allocation names its attribute 1"],
        "block-unmasked" => &["its cidr is 10.65.0.1/29, not 10.65.0.0/29"],
        "block-key-slash" => {
            &["/ipv4/block/10.65.0.0/29 its key does not end with a block", "there is no such block"]
        }
        "block-wrong-size" => &["it is a /30 in the pool pool-a (10.65.0.0/26), whose blocks are /29"],
        "aff-missing" => &["it belongs to host1, which has no affinity for it"],
        "aff-pending" => &["its state is 'pending'"],
        "aff-other-host" => {
            &["it belongs to host1, which has no affinity for it", "the block belongs to host1"]
        }
        "pool-minimal" => &["it is a /29 in the pool pool-a (10.65.0.0/26), whose blocks are /26"],
        "node-missing" => &["there is no node host1"],
        _ => &[],
    }
}

/// The command ends by itself, and says why when it fails.
fn sound(said: &Said, of: &str) {
    let died = said.code < 0 || said.code == 101 || said.stderr.contains("panicked");
    assert!(
        !died && (said.code == 0 || !(said.stderr.is_empty() && said.stdout.is_empty())),
        "{of}: {said:?}"
    );
}

#[tokio::test]
async fn no_record_written_by_hand_makes_a_command_panic_or_lie() {
    let mut desk = Desk::of(World::empty().await);
    let all = deviations();
    assert_eq!((all.len(), all[0].name.as_str()), (56, "baseline"));
    let mut wrong = Vec::new();
    for deviation in &all {
        let name = &deviation.name;
        desk.world.clear().await;
        for (key, value) in &all[0].put {
            desk.world.put(key, value).await;
        }
        for key in &deviation.delete {
            desk.world.delete(key).await;
        }
        for (key, value) in &deviation.put {
            desk.world.put(key, value).await;
        }
        let check = desk.run("ipam check");
        sound(&check, name);
        let beyond = beyond(name);
        let missed: Vec<_> = beyond.iter().filter(|words| !check.stdout.contains(**words)).collect();
        let total = deviation.problems.unwrap_or_default() + beyond.len();
        let ending = format!("Check complete; found {total} problems.\n");
        if !missed.is_empty() || !check.stdout.ends_with(&ending) {
            let shown: Vec<&str> =
                check.stdout.lines().skip_while(|line| !line.contains("Scanning")).collect();
            wrong.push(format!("{name}: {missed:?}, {ending}{}", shown.join("\n")));
        }
        assert_eq!(check.code, i32::from(!check.stdout.ends_with("found 0 problems.\n")), "{name}");

        let pools = desk.run("pool show -o wide");
        sound(&pools, name);
        assert_eq!(
            (pools.code, pools.stdout.contains("10.65.0.0/26")),
            (0, name != "pool-missing"),
            "{name}"
        );
        let blocks = desk.run("ipam show --show-blocks");
        sound(&blocks, name);
        assert_eq!(blocks.code, 0, "{name}: {blocks:?}");
        let holder = desk.run(&format!("ipam show --ip {ADDRESS}"));
        sound(&holder, name);
        match name.as_str() {
            "block-number-attr" | "block-seq-float" | "block-seq-string" => {
                for said in [&pools, &blocks, &holder, &check] {
                    assert!(said.stderr.contains("/ipv4/block/10.65.0.0-29 is damaged"), "{name}: {said:?}");
                }
                assert_eq!(holder.code, 1, "{name}: {holder:?}");
            }
            "block-unmasked" | "block-key-slash" => {
                assert!(holder.stdout.contains("not assigned"), "{holder:?}")
            }
            _ => assert!(holder.stdout.starts_with("IP 10.65.0.0 is in use\n"), "{name}: {holder:?}"),
        }
        for line in [
            "ipam show --show-borrowed",
            "ipam release --ip 10.65.0.0 --dry-run",
            "pool remove pool-a --dry-run",
        ] {
            sound(&desk.run(line), name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
