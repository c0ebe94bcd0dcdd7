//! The text of `help`: the verbs that users know by heart first, then the others, then what became of old ones.

use super::route::{DELEGATED, DELEGATED_PAIRS};

/// The verbs that the documentation for users names.
pub(super) const PAGE: [(&str, &str); 5] = [
    ("help", "Print this text; `help VERB` prints the options of a verb"),
    ("status", "Tell how this node and all that it needs are doing"),
    ("profile show [--detailed]", "List the profiles, with their endpoints"),
    ("endpoint show [--detailed]", "List the endpoints"),
    ("pool show", "List the IP pools"),
];

/// Further verbs in calicoctl's classic words.
pub(super) const CLASSIC: [(&str, &str); 13] = [
    ("profile add|remove NAME", "Make a profile, or remove one that no endpoint has"),
    ("profile NAME rule show|add|remove …", "Show and change the rules of a profile"),
    ("profile NAME tag show|add|remove", "Show and change the labels that a profile applies"),
    ("endpoint E profile append|set|remove …", "Change the profiles of an endpoint"),
    ("pool add|remove|enable|disable CIDR", "Make, change and remove IP pools"),
    ("ipam show|release|check", "Show, give back and check addresses"),
    ("policy show [--detailed]", "List tiers and policies in Felix's order"),
    ("bgppeer add IP as N|remove IP|show", "BGP peers of all nodes"),
    ("node bgppeer add IP as N|remove IP|show", "BGP peers of this node"),
    ("bgp-node-mesh [on|off]", "Show or change whether all nodes peer with each other"),
    ("default-node-as [N]", "Show or change the AS of nodes that name none"),
    ("node start --ip=IP|stop", "Start and stop calico/node on this host"),
    ("node show|init|remove", "List the nodes, make this one's records, remove a dead one"),
];

/// What became of commands of the classic calicoctl that are not verbs any longer.
pub(super) const OLD: [(&str, &str); 13] = [
    ("node --ip=IP …", "node start --ip=IP"),
    ("node --ip=IP --node-image=…", "the image stands in calico-node.service; node start --ip=IP"),
    ("container add C IP", "CALICO_IP and CALICO_PROFILE in the app's env"),
    ("container remove C", "ends with the task; calico-mesos gc after a crash"),
    ("container C ip add|remove IP", "CALICO_IP in the app's env, and a new deployment"),
    ("container C endpoint-id show", "endpoint show --detailed"),
    ("profile NAME rule update", "get profile NAME -o yaml > F, edit F, apply -f F"),
    ("diags", "node diags"),
    ("diags --upload", "node diags, and pass its file on yourself"),
    ("checksystem", "node checksystem"),
    ("checksystem --fix", "node checksystem, and load the modules that it names"),
    ("restart-docker-with-alternative-unix-socket", "calico-mesos node install"),
    ("restart-docker-without-alternative-unix-socket", "calico-mesos node uninstall"),
];

/// The whole text, with a line break at its end.
pub(super) fn text() -> String {
    let mut text =
        String::from("calicoctl of calico-mesos: Calico for tasks of Apache Mesos and Marathon.\n\n");
    let mut table = |heading: &str, rows: &[(&str, &str)], between: &str| {
        let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default();
        text.push_str(&format!("{heading}:\n"));
        for (left, right) in rows {
            let blanks = " ".repeat(width - left.chars().count());
            text.push_str(format!("  {left}{blanks}{between}{right}").trim_end());
            text.push('\n');
        }
        text.push('\n');
    };
    table("Verbs", &PAGE, "  ");
    table("Further verbs", &CLASSIC, "  ");
    let pairs = DELEGATED_PAIRS.map(|(verb, second)| format!("{verb} {second}"));
    let (verbs, pairs) = (DELEGATED.join(", "), pairs.join(", "));
    table("Verbs of Calico's own calicoctl, which is called for them", &[(&verbs, ""), (&pairs, "")], "");
    table("Commands of the classic calicoctl, and what to use instead", &OLD, "  ->  ");
    text.push_str(
        "All verbs of calico-mesos work here too (`calico-mesos --help`), and these work there. `--config FILE` names \
         another\nconfiguration than /etc/calico-mesos/config.toml, `-o json` prints for programs, `--dry-run` changes \
         nothing.\n",
    );
    text
}
