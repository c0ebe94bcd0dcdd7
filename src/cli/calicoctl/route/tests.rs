//! Every command of the classic calicoctl is a verb, is delegated, or names its successor.

use clap::CommandFactory;

use super::super::help;
use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn routed(line: &str) -> CommandRoute {
    route(words(line), true)
}

fn parse(line: &str) -> CommandRoute {
    CommandRoute::Parse(words(line))
}

fn delegated(line: &str) -> CommandRoute {
    CommandRoute::Delegate { config: None, words: words(line) }
}

/// The usage text of the classic calicoctl (v0.4.8), one a line with example values.
const CLASSIC: &str = "
    node --ip=10.0.0.1
    node --ip=10.0.0.1 --node-image=calico/node:v0.4.8 --ip6=fd00::1 --as=64512
    node stop --force
    node bgppeer add 10.0.0.1 as 64512
    node bgppeer remove 10.0.0.1
    node bgppeer show --ipv4
    status
    profile show --detailed
    profile add dev
    profile remove dev
    profile dev tag show
    profile dev tag add web
    profile dev tag remove web
    profile dev rule add inbound --at=1 allow tcp from tag web to ports 80
    profile dev rule remove outbound --at=1
    profile dev rule show
    profile dev rule json
    profile dev rule update
    pool add 192.168.0.0/16 --ipip --nat-outgoing
    pool remove 192.168.0.0/16
    pool show --ipv6
    default-node-as
    default-node-as 64512
    bgppeer add 10.0.0.1 as 64512
    bgppeer remove 10.0.0.1
    bgppeer show
    bgp-node-mesh
    bgp-node-mesh off
    container add web 192.168.0.1
    container remove web --force
    container web ip add 192.168.0.2 --interface=eth1
    container web ip remove 192.168.0.2
    container web endpoint-id show
    endpoint show --host=a --orchestrator=docker --workload=w --endpoint=e --detailed
    endpoint e profile append dev test
    endpoint e profile remove dev
    endpoint e profile set dev
    endpoint e profile show
    diags
    diags --upload
    checksystem
    checksystem --fix
    restart-docker-with-alternative-unix-socket
    restart-docker-without-alternative-unix-socket
    help
    --help";

#[test]
fn every_classic_command_works_or_names_its_successor() {
    let mut seen = 0;
    for line in CLASSIC.lines().map(str::trim).filter(|line| !line.is_empty()) {
        seen += 1;
        match routed(line) {
            CommandRoute::Help | CommandRoute::Delegate { .. } => {}
            CommandRoute::Retired(sentence) => {
                let successors = ["use ", "CALICO_IP", "run ", "gc"];
                assert!(successors.iter().any(|word| sentence.contains(word)), "{line}: {sentence}");
                assert_eq!(sentence.lines().count(), 1);
            }
            CommandRoute::Parse(words) => {
                let arguments = [vec!["calicoctl".into()], words].concat();
                let parsed = crate::cli::Cli::command().try_get_matches_from(arguments);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }
    assert_eq!(seen, 46);
}

#[test]
fn classic_words_become_ours() {
    assert_eq!(routed("node --ip=10.0.0.1 --as=64512"), parse("node start --ip=10.0.0.1 --as=64512"));
    assert_eq!(routed("node --help"), parse("node --help"));
    assert_eq!(routed("diags"), delegated("node diags"));
    assert_eq!(route(words("diags x.tar.gz"), false), parse("diags x.tar.gz"));
    assert_eq!(route(words("node diags"), false), delegated("node diags"));
    assert_eq!(routed("checksystem"), delegated("node checksystem"));
    assert_eq!(routed("help pool"), parse("pool --help"));
    assert_eq!(routed("help get"), delegated("get --help"));
    assert!(matches!(routed("node --ip=10.0.0.1 --node-image=x"), CommandRoute::Retired(_)));
}

#[test]
fn verbs_of_calicos_own_calicoctl_go_there_word_for_word() {
    for line in ["get nodes -o wide", "ipam configure --strictaffinity=true", "node status", "version"] {
        assert_eq!(routed(line), delegated(line));
        assert_eq!(route(words(line), false), delegated(line));
    }
    // Before the verb `--config` is ours, behind it theirs.
    let both = routed("--config=/a -l debug --allow-version-mismatch get wep --config=/b");
    let theirs = words("-l debug --allow-version-mismatch get wep --config=/b");
    assert_eq!(both, CommandRoute::Delegate { config: Some("/a".into()), words: theirs });
    assert_eq!(routed("--config /a ipam show"), parse("--config /a ipam show"));
}

#[test]
fn help_is_ours_under_the_name_calicoctl() {
    for line in ["help", "--help", "-h", ""] {
        assert_eq!(routed(line), CommandRoute::Help, "{line}");
    }
    assert_eq!(route(words("--help"), false), parse("--help"));
    assert_eq!(route(words("help"), false), CommandRoute::Help);
    assert_eq!(route(Vec::new(), false), parse(""));
    let text = help::text();
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in\n{text}"));
    let order = [
        "  help ",
        "  status ",
        "  profile show",
        "  endpoint show",
        "  pool show",
        "  bgppeer add",
        "get, apply",
        "  ->  ",
    ];
    let places: Vec<usize> = order.into_iter().map(place).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}

/// The table of old commands says what the answers say.
#[test]
fn the_table_of_old_commands_lists_what_is_answered() {
    for (old, _) in help::OLD {
        let example = old.replace("add|remove", "add").replace('…', "x");
        assert!(
            !matches!(routed(&example), CommandRoute::Parse(words) if words == self::words(&example)),
            "{old}"
        );
    }
}
