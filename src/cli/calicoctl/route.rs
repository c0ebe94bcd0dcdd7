//! What a command line means: a verb of ours, one of Calico's own calicoctl, or one that has a successor. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

/// What becomes of a command line.
#[derive(Debug, PartialEq)]
pub(super) enum CommandRoute {
    /// For our own verbs.
    Parse(Vec<OsString>),
    /// For Calico's own calicoctl, without our option `--config`.
    Delegate {
        config: Option<PathBuf>,
        words: Vec<OsString>,
    },
    /// A sentence that names the successor.
    Retired(String),
    Help,
}

/// Verbs of Calico's own calicoctl, with any words behind them.
pub(super) const DELEGATED: [&str; 10] =
    ["get", "apply", "create", "replace", "patch", "delete", "label", "convert", "datastore", "version"];
/// The same for verbs of two words.
pub(super) const DELEGATED_PAIRS: [(&str, &str); 6] = [
    ("ipam", "configure"),
    ("ipam", "split"),
    ("node", "run"),
    ("node", "diags"),
    ("node", "checksystem"),
    ("node", "status"),
];

/// What stands before the verb.
#[derive(Default)]
struct Leading {
    config: Option<PathBuf>,
    /// Options of Calico's own calicoctl.
    theirs: Vec<OsString>,
    count: usize,
}

impl Leading {
    fn of(words: &[OsString]) -> Self {
        let mut leading = Self::default();
        while let Some(word) = words.get(leading.count).and_then(|word| word.to_str()) {
            let next = words.get(leading.count + 1);
            match (word.split_once('='), next) {
                (Some(("--config", file)), _) => leading.config = Some(file.into()),
                (None, Some(file)) if word == "--config" => {
                    leading.config = Some(file.into());
                    leading.count += 1;
                }
                (Some(("--log-level", _)), _) => leading.theirs.push(word.into()),
                (None, Some(level)) if word == "-l" || word == "--log-level" => {
                    leading.theirs.extend([word.into(), level.clone()]);
                    leading.count += 1;
                }
                (None, _) if word == "--allow-version-mismatch" => leading.theirs.push(word.into()),
                _ => break,
            }
            leading.count += 1;
        }
        leading
    }
}

/// Decides on the words behind the program's name. As `calicoctl` it prints its own help where clap would print ours.
pub(super) fn route(words: Vec<OsString>, is_calicoctl: bool) -> CommandRoute {
    let leading = Leading::of(&words);
    let rest = &words[leading.count..];
    let text: Vec<&str> = rest.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let delegate = |rest: &[OsString]| CommandRoute::Delegate {
        config: leading.config.clone(),
        words: leading.theirs.iter().chain(rest).cloned().collect(),
    };
    let ours = |first: &[&str], rest: &[OsString]| {
        let config = leading.config.iter().flat_map(|file| ["--config".into(), file.clone().into()]);
        CommandRoute::Parse(
            config.chain(first.iter().map(OsString::from)).chain(rest.iter().cloned()).collect(),
        )
    };
    match text.as_slice() {
        ["help"] => CommandRoute::Help,
        [] | ["--help" | "-h"] if is_calicoctl => CommandRoute::Help,
        ["help", verb, ..] if DELEGATED.contains(verb) => delegate(&[rest[1].clone(), "--help".into()]),
        ["help", ..] => ours(&[], &[&rest[1..], &["--help".into()]].concat()),
        [verb, ..] if DELEGATED.contains(verb) => delegate(rest),
        [verb, second, ..] if DELEGATED_PAIRS.contains(&(verb, second)) => delegate(rest),
        ["profile", _, "rule", "update", ..] => CommandRoute::Retired(RULE_UPDATE.to_owned()),
        ["diags", "--upload", ..] => CommandRoute::Retired(UPLOAD.to_owned()),
        ["checksystem", "--fix", ..] => CommandRoute::Retired(FIX.to_owned()),
        // Under our own name it is our own.
        ["diags", ..] if !is_calicoctl => ours(&[], rest),
        ["diags" | "checksystem", ..] => delegate(&[&["node".into()], rest].concat()),
        ["node", option, ..] if option.starts_with("--") && *option != "--help" => {
            match text.iter().any(|word| word.starts_with("--node-image")) {
                true => CommandRoute::Retired(IMAGE.to_owned()),
                false => ours(&["node", "start"], &rest[1..]),
            }
        }
        words => match retired(words) {
            Some(sentence) => CommandRoute::Retired(sentence),
            None => ours(&[], rest),
        },
    }
}

const RULE_UPDATE: &str = "`rule update` is gone: use calicoctl get profile NAME -o yaml > file, edit the file, then calicoctl apply -f file";
const UPLOAD: &str = "`diags --upload` sent the host's state to a public server and is gone: use `calicoctl node diags`, and pass its file on yourself";
const FIX: &str = "`checksystem --fix` is gone: run `calicoctl node checksystem`, and load the kernel modules that it names";
const IMAGE: &str =
    "`--node-image` is gone: calico-node.service names the image; set it there, then use `calicoctl node start --ip=IP`";

/// The sentence for a classic command that no verb takes over.
fn retired(words: &[&str]) -> Option<String> {
    let sentence = match words {
        ["container", "add", ..] => {
            "`container add` is gone: an app gets its address at its launch, by CALICO_IP and CALICO_PROFILE in its env; \
             a container that runs already cannot be added"
        }
        ["container", "remove", ..] => {
            "`container remove` is gone: a task's address and endpoint go with the task; `calico-mesos gc` removes what a \
             crash left behind"
        }
        ["container", _, "ip", ..] => {
            "`container … ip` is gone: CALICO_IP in the app's env lists its addresses; change it and deploy the app again"
        }
        ["container", _, "endpoint-id", ..] => {
            "`container … endpoint-id show` is gone: use `calicoctl endpoint show --detailed`, which lists the endpoint of \
             every task"
        }
        ["container", ..] => {
            "`container` is gone: an app's env decides by CALICO_IP and CALICO_PROFILE; see `calicoctl endpoint show --detailed`"
        }
        ["restart-docker-with-alternative-unix-socket", ..] => {
            "Docker keeps its socket: use `calico-mesos node install`, which needs no proxy before it"
        }
        ["restart-docker-without-alternative-unix-socket", ..] => {
            "Docker keeps its socket: use `calico-mesos node uninstall` to undo `calico-mesos node install`"
        }
        _ => return None,
    };
    Some(sentence.to_owned())
}

#[cfg(test)]
mod tests;
