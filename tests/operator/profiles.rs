//! `profile …`: what the words print and write.

use serde_json::{json, Value};

use crate::datastore::{auto, task, RESOURCES};
use crate::desk::{Desk, NODE, PROGRAM};

const POOL: (&str, &str) = ("web", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#);

async fn desk() -> Desk {
    Desk::new(&[NODE, "agent-2"], &[POOL]).await
}

async fn record(desk: &mut Desk, name: &str) -> Value {
    serde_json::from_str(&desk.world.dump().await[&format!("{RESOURCES}/profiles/{name}")]).unwrap()
}

/// The cells of a framed table, without its header.
pub fn cells(table: &str) -> Vec<Vec<String>> {
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[tokio::test]
async fn profiles_and_their_members_are_listed() {
    let mut desk = desk().await;
    let (one, other) = (task(NODE), task("agent-2"));
    desk.world.launch(&one, &auto()).await.unwrap();
    desk.world.launch(&other, &auto()).await.unwrap();
    desk.done("profile add empty");
    let table = desk.done("profile show");
    assert_eq!(table.lines().nth(1).map(str::trim), Some("|  Name |"), "{table}");
    assert_eq!(cells(&table), [["dev"], ["empty"]]);
    assert_eq!(desk.done("profile show -o name"), "dev\nempty\n");

    let table = desk.done("profile show --detailed");
    for heading in ["Name", "Host", "Workload Type", "Workload ID", "Endpoint ID", "State"] {
        assert!(table.lines().nth(1).unwrap().contains(heading), "{table}");
    }
    let short = |workload: &str| workload.chars().take(12).collect::<String>();
    let rows = cells(&table);
    assert_eq!(rows[0], ["dev", NODE, "mesos", &short(&one.workload), "eth0", "-"]);
    assert_eq!(rows[1], ["dev", "agent-2", "mesos", &short(&other.workload), "eth0", "-"]);
    assert_eq!(rows[2], ["empty", "None", "None", "None", "None", "None"]);
    assert!(desk.done("profile show --detailed -o wide").contains(&one.workload));
    let json = desk.json("profile show");
    assert_eq!((&json[0]["tags"], &json[0]["endpoints"][1]["host"]), (&json!(["dev"]), &json!("agent-2")));

    desk.world.delete(&format!("{RESOURCES}/profiles/dev")).await;
    let said = desk.run("profile show --detailed");
    assert!(said.code == 0 && said.stderr.contains("no profile 'dev', but 2 endpoints"), "{said:?}");
}

#[tokio::test]
async fn a_profile_is_made_as_a_launch_makes_it() {
    let mut desk = desk().await;
    let said = desk.run("profile add dev --dry-run");
    assert_eq!((said.code, said.stdout.as_str()), (3, "Would create profile dev\n"), "{said:?}");
    assert!(!desk.world.dump().await.keys().any(|key| key.contains("/profiles/")));
    assert_eq!(desk.done("profile add dev"), "Created profile dev\n");
    assert_eq!(desk.done("profile add dev"), "Profile dev already exists.\n");
    let added = record(&mut desk, "dev").await;
    desk.done("profile remove dev");
    desk.world.launch(&task(NODE), &auto()).await.unwrap();
    let launched = record(&mut desk, "dev").await;
    assert_eq!(added["spec"], launched["spec"]);
    for field in ["uid", "creationTimestamp", "name"] {
        assert!(added["metadata"][field].is_string(), "{added}");
    }
    for name in ["Dev", "a_b", "a/b"] {
        assert!(desk.refused(&format!("profile add {name}")).contains("not a valid profile name"));
    }
    assert!(desk.refused("profile add projectcalico-default-allow").contains("built into Calico"));
    let trail: Vec<Value> = desk.trail().into_iter().map(|line| line["object"].clone()).collect();
    assert_eq!(trail, ["Profile dev", "Profile dev"]);
}

#[tokio::test]
async fn a_profile_that_an_endpoint_has_is_not_removed() {
    let mut desk = desk().await;
    let member = task(NODE);
    desk.world.launch(&member, &auto()).await.unwrap();
    let refused = desk.refused("profile remove dev");
    assert!(refused.contains(&member.task_id), "{refused}");
    desk.done("profile add other");
    let said = desk.run("profile remove other --dry-run");
    assert_eq!((said.code, said.stdout.as_str()), (3, "Would delete profile other\n"));
    assert_eq!(desk.done("profile remove other"), "Deleted profile other\n");
    assert!(desk.refused("profile remove devv").contains("no profile 'devv'; did you mean 'dev'?"));
    assert!(record(&mut desk, "dev").await.is_object());
}

#[tokio::test]
async fn rules_in_classic_words() {
    let mut desk = desk().await;
    desk.done("profile add dev");
    desk.done("profile add web");
    let shown = "Inbound rules:\n   1 allow from tag dev\nOutbound rules:\n   1 allow\n";
    assert_eq!(desk.done("profile dev rule show"), shown);
    desk.done("profile dev rule add inbound allow tcp from ports 1:2 tag web");
    desk.done("profile dev rule add inbound --at=1 deny icmp type 8 code 0 from 10.0.0.0/8");
    desk.done("profile dev rule add outbound deny udp to ports 53,123 --at 1");
    let shown = "Inbound rules:\n   1 deny icmp type 8 code 0 from 10.0.0.0/8\n   2 allow from tag dev\n   3 allow tcp from \
                 ports 1:2 tag web\nOutbound rules:\n   1 deny udp to ports 53,123\n   2 allow\n";
    assert_eq!(desk.done("profile dev rule show"), shown);
    let again = desk.done("profile dev rule add inbound allow tcp from ports 1:2 tag web");
    assert!(again.contains("already present"), "{again}");
    let said = desk.run("profile dev rule remove inbound --at=1 --dry-run");
    assert_eq!((said.code, desk.done("profile dev rule show").as_str()), (3, shown), "{said:?}");
    desk.done("profile dev rule remove inbound --at=1");
    desk.done("profile dev rule remove inbound allow tcp from ports 1:2 tag web");
    desk.done("profile dev rule remove outbound deny udp to ports 53,123");
    let shown = "Inbound rules:\n   1 allow from tag dev\nOutbound rules:\n   1 allow\n";
    assert_eq!(desk.done("profile dev rule show"), shown);
    assert!(desk
        .refused("profile dev rule remove inbound allow tcp")
        .contains("no inbound rule 'allow tcp'"));
    assert!(desk
        .refused("profile dev rule remove inbound --at=2")
        .contains("has 1 inbound rules; position 2"));
    assert!(desk.refused("profile devv rule show").contains("did you mean 'dev'?"));
    let before = record(&mut desk, "dev").await;
    for (words, reason) in [
        ("inbound allow tcp from ports 0", "from 1 to 65535"),
        ("inbound allow from tag nowhere", "tag nowhere"),
        ("inbound allow from 10.0.0.0/8 to fd00::/8", "both IPv4 and IPv6"),
        ("inbound permit", "allow or deny"),
        ("sideways allow", "inbound, outbound"),
    ] {
        let said = desk.run(&format!("profile dev rule add {words}"));
        assert!(said.code == 64 && said.stderr.contains(reason), "{said:?}");
    }
    assert_eq!(record(&mut desk, "dev").await, before);
    assert_eq!(desk.trail().len(), 2 + 3 + 3);
    for line in ["profile rule show", "profile dev show", "profile dev", "profile dev rule remove inbound"] {
        assert_eq!(desk.run(line).code, 64, "{line}");
    }
    let said = desk.run("profile dev rule update");
    assert!(said.code == 64 && said.stderr.contains("calicoctl apply"), "{said:?}");
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    let said = desk.run("profile dev rule show -o name");
    assert!(said.code == 64 && said.stderr.contains("rules have no names: use -o json"), "{said:?}");
    let said = desk.run("profile dev rule add inbound allow tcp from ports 1-5");
    assert!(said.code == 64 && said.stderr.contains("1:5"), "{said:?}");
}

#[tokio::test]
async fn a_profile_cannot_have_the_name_of_a_command() {
    let mut desk = desk().await;
    let before = desk.world.dump().await;
    for name in ["show", "add", "remove", "rule", "tag", "help"] {
        let said = desk.run(&format!("profile add {name}"));
        let sentence = format!("`profile {name}` is a command");
        assert!(said.code == 64 && said.stderr.contains(&sentence), "{said:?}");
    }
    assert_eq!(desk.world.dump().await, before);
    // A launch may have made one: it is shown, and can be removed.
    desk.world.put(&format!("{RESOURCES}/profiles/show"), r#"{"spec":{}}"#).await;
    assert!(desk.done("profile show -o name").contains("show\n"));
    desk.done("profile remove show");
}

#[tokio::test]
async fn rules_without_classic_words_are_shown_and_kept() {
    let mut desk = desk().await;
    let odd = json!({"action": "Log", "ipVersion": 4, "later": {"field": [1, 2]}});
    let many = json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8", "172.16.0.0/12"]}});
    let old = json!({
        "kind": "Profile", "apiVersion": "projectcalico.org/v3", "unknown": true,
        "metadata": {"name": "old", "uid": "u", "creationTimestamp": "2026-08-22T10:11:12Z", "generation": 3},
        "spec": {"ingress": [odd, many, 7], "extra": {"a": 1}},
    });
    desk.world.put(&format!("{RESOURCES}/profiles/old"), &old.to_string()).await;
    // Calico cannot read the third one.
    let warned = |desk: &Desk, line: &str| {
        let said = desk.run(line);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("inbound rule") && said.stderr.lines().count() == 1, "{line}: {said:?}");
        said
    };
    let text = warned(&desk, "profile old rule show").stdout;
    let yaml = "   1 action: Log\n     ipVersion: 4\n     later:\n       field:\n";
    assert!(text.starts_with(&format!("Inbound rules:\n{yaml}")), "{text}");
    for part in ["   2 action: Allow\n", "172.16.0.0/12", "   3 7\nOutbound rules:\n"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let said = warned(&desk, "profile old rule add inbound --at=2 deny");
    assert!(said.stderr.contains("rule remove inbound --at 4") && said.stderr.contains("Felix"), "{said:?}");
    desk.done("profile old tag add old");
    let mut wanted = old;
    wanted["spec"]["ingress"] = json!([odd, {"action": "Deny", "source": {}, "destination": {}}, many, 7]);
    wanted["spec"]["labelsToApply"] = json!({"mesos-profile/old": ""});
    assert_eq!(record(&mut desk, "old").await, wanted);
    let rules: Value = serde_json::from_str(&warned(&desk, "profile old rule json").stdout).unwrap();
    assert_eq!(rules, json!({"ingress": wanted["spec"]["ingress"], "egress": []}));
    desk.done("profile old rule remove inbound --at 4");
    desk.done("profile old rule show");
}

#[tokio::test]
async fn tags_are_labels_that_the_profile_applies() {
    let mut desk = desk().await;
    desk.done("profile add dev");
    desk.done("profile add web");
    // As Calico's CNI plugin makes it for a network.
    let cni = r#"{"metadata":{"name":"net"},"spec":{"labelsToApply":{"net":""}}}"#;
    desk.world.put(&format!("{RESOURCES}/profiles/net"), cni).await;
    assert_eq!(cells(&desk.done("profile dev tag show")), [["dev"]]);
    desk.done("profile dev tag add web");
    assert!(desk.done("profile dev tag add web").contains("already"));
    desk.done("profile dev tag add net");
    let labels = json!({"mesos-profile/dev": "", "mesos-profile/web": "", "net": ""});
    assert_eq!(record(&mut desk, "dev").await["spec"]["labelsToApply"], labels);
    assert_eq!(desk.done("profile dev tag show -o name"), "dev\nweb\nnet\n");
    desk.done("profile web rule add inbound allow from tag net");
    let rules = record(&mut desk, "web").await["spec"]["ingress"].clone();
    assert_eq!(rules[1]["source"], json!({"selector": "has(net)"}));
    let said = desk.run("profile dev tag remove web --dry-run");
    assert_eq!(said.code, 3, "{said:?}");
    desk.done("profile dev tag remove web");
    assert!(desk.refused("profile dev tag remove web").contains("has no tag 'web'; it has: dev, net"));
}

#[tokio::test]
async fn a_locked_datastore_is_read_and_not_written() {
    let mut desk = desk().await;
    desk.done("profile add dev");
    let locked = r#"{"metadata":{"name":"default"},"spec":{"datastoreReady":false}}"#;
    desk.world.put(&format!("{RESOURCES}/clusterinformations/default"), locked).await;
    assert_eq!(cells(&desk.done("profile show")), [["dev"]]);
    for line in
        ["profile add x", "profile remove dev", "profile dev rule add inbound deny", "profile dev tag add x"]
    {
        assert!(desk.refused(line).contains("locked"), "{line}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let desk = desk().await;
    desk.done("profile add dev");
    let mut command = desk.command(PROGRAM);
    command.args(["profile", "show"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
