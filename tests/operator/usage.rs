//! What a person reads when a command cannot be carried out.

use std::fs;
use std::os::unix::fs::symlink;

use crate::datastore::{IPAM, RESOURCES};
use crate::desk::{Desk, Said, NODE, PROGRAM};

#[tokio::test]
async fn a_mistake_in_a_command_line_leads_to_the_help_of_its_verb() {
    let desk = Desk::new(&[], &[]).await;
    desk.done("profile add dev");
    for (line, help, words) in [
        ("pool add", "pool add", "<CIDR>"),
        ("pool add 10.66.0.0/16 --ipip=sometimes", "pool add", "sometimes"),
        ("pool shwo", "pool", "did you mean 'show'?"),
        ("profile shwo", "profile", "did you mean 'show'?"),
        ("profile dev rul show", "profile", "did you mean 'rule'?"),
        ("profile dev rule ad inbound deny", "profile NAME rule", "did you mean 'add'?"),
        ("profile dev rule add inbound permit", "profile NAME rule add", "allow or deny, not 'permit'"),
        ("profile dev show", "profile NAME show", "'dev' is out of place"),
        ("endpoint web.1 profle show", "endpoint", "did you mean 'profile'?"),
        ("endpoint web.1 profile apend dev", "endpoint ENDPOINT profile", "did you mean 'append'?"),
        ("node bgppeer add 10.0.0.1 64512", "node bgppeer add", "64512"),
        ("pol show", "", "did you mean 'pool'?"),
    ] {
        let said = desk.run(line);
        assert_eq!((said.code, said.stdout.as_str()), (64, ""), "{line}: {said:?}");
        let lines: Vec<&str> = said.stderr.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains(words), "{line}: {said:?}");
        let help = format!("{PROGRAM_NAME} {help}");
        assert_eq!(lines[1], format!("try '{} --help'", help.trim_end()), "{line}");
        // What it says can be typed.
        let words: Vec<&str> = help.split_whitespace().skip(1).collect();
        assert_eq!(desk.run(&[&words[..], &["--help"]].concat().join(" ")).code, 0, "{help}");
    }
}

const PROGRAM_NAME: &str = "calico-mesos";

#[tokio::test]
async fn lines_begin_with_the_name_that_was_called() {
    let mut desk = Desk::new(&[NODE], &[]).await;
    let link = desk.dir().join("calicoctl");
    symlink(PROGRAM, &link).unwrap();
    desk.world.put(&format!("{RESOURCES}/profiles/broken"), "{").await;
    for (line, start) in [
        ("profile show", "calicoctl: warning: "),
        ("profile broken rule show", "calicoctl: "),
        ("pool remove none", "calicoctl: there is no IP pool"),
        ("pool add", "calicoctl: "),
    ] {
        let said = Said::of(desk.command(&link).args(line.split_whitespace()).output().unwrap());
        assert!(said.stderr.starts_with(start) && !said.stderr.contains(PROGRAM_NAME), "{line}: {said:?}");
    }
    assert!(desk.run("profile show").stderr.starts_with("calico-mesos: warning: "));
}

/// Every verb that speaks to the datastore.
const VERBS: [&str; 33] = [
    "profile show",
    "profile add dev",
    "profile remove dev",
    "profile dev rule show",
    "profile dev rule add inbound deny",
    "profile dev rule remove inbound --at 1",
    "profile dev tag show",
    "profile dev tag add x",
    "endpoint show",
    "endpoint show --detailed --host agent-1",
    "endpoint web.1 profile show",
    "endpoint web.1 profile append dev",
    "pool show",
    "pool show -o wide",
    "pool add 10.66.0.0/16",
    "pool remove web",
    "pool disable web",
    "ipam show",
    "ipam show --ip 10.66.0.1",
    "ipam show --show-configuration",
    "ipam release --ip 10.66.0.1",
    "ipam check",
    "policy show",
    "policy show --detailed",
    "policy explain web db --port tcp/80",
    "bgppeer show",
    "bgppeer add 10.0.0.1 as 1",
    "node bgppeer show",
    "bgp-node-mesh",
    "default-node-as 1",
    "node show",
    "node remove dead",
    "gc --decommission --node dead",
];

#[tokio::test]
async fn a_datastore_that_is_away_is_named_with_cause_and_advice() {
    let desk = Desk::new(&[], &[]).await;
    let text = fs::read_to_string(desk.config()).unwrap();
    fs::write(desk.config(), text.replace(&desk.world.etcd.endpoint, "http://127.0.0.1:1")).unwrap();
    for line in VERBS {
        let refused = desk.refused(line);
        for words in ["http://127.0.0.1:1", "refused", "[etcd] in config.toml", "`calico-mesos config show`"]
        {
            assert!(refused.contains(words), "{line}: {words}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_damaged_setting_of_the_cluster_is_named_with_what_to_do() {
    let mut desk = Desk::new(&[NODE], &[("web", r#"{"cidr":"10.65.0.0/24"}"#)]).await;
    let (ipam, bgp) = (format!("{IPAM}/config"), format!("{RESOURCES}/bgpconfigurations/default"));
    let felix = format!("{RESOURCES}/felixconfigurations/node.{NODE}");
    let cluster = format!("{RESOURCES}/clusterinformations/default");
    for (key, value, lines) in [
        (&ipam, "{", &["ipam show --show-configuration"][..]),
        (&bgp, "[]", &["bgp-node-mesh", "bgp-node-mesh off", "default-node-as", "default-node-as 65000"]),
        (&bgp, r#"{"spec":{"asNumber":"many"}}"#, &["bgp-node-mesh", "default-node-as"]),
        (&felix, "{", &["node init --ip 127.0.0.1", "node init --ip 127.0.0.1 --dry-run"]),
        (&cluster, "{", &["node init --ip 127.0.0.1"]),
    ] {
        let before = desk.world.dump().await;
        desk.world.put(key, value).await;
        for line in lines {
            let refused = desk.refused(line);
            assert!(refused.contains(key.as_str()), "{line}: {refused}");
            assert!(refused.contains("repair or delete that record"), "{line}: {refused}");
        }
        desk.world.delete(key).await;
        if let Some(was) = before.get(key) {
            desk.world.put(key, was).await;
        }
    }
}
