//! The command line of an OCI runtime, read only as far as we must: which call it is, for which
//! container, and the global flags that every further call for it needs.
//!
//! Shape (runc): `runc [global flags] create|start|… [flags] <id>`. Nothing is ever rewritten.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::RuntimeError;

/// Global flags of runc, crun and youki whose value may stand in the next word.
const GLOBAL_WITH_VALUE: [&str; 6] = ["root", "log", "log-format", "criu", "rootless", "cgroup-manager"];
/// The same for `create`, `run` and `restore`.
const CREATE_WITH_VALUE: [&str; 14] = [
    "bundle",
    "b",
    "console-socket",
    "pidfd-socket",
    "pid-file",
    "preserve-fds",
    "image-path",
    "work-path",
    "parent-path",
    "manage-cgroups-mode",
    "empty-ns",
    "lsm-profile",
    "lsm-mount-context",
    "status-fd",
];

/// The calls that we do something for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subcommand {
    Create,
    Start,
    /// Would start a workload past `create` and `start`: neither namespace nor gate.
    Restore,
    Run,
    /// Passed through, and said to the proxy.
    Delete,
    /// Passed through.
    Other,
}

impl Subcommand {
    /// As it stands on a command line; none of what is passed through.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Create => Some("create"),
            Self::Start => Some("start"),
            Self::Restore => Some("restore"),
            Self::Run => Some("run"),
            Self::Delete => Some("delete"),
            Self::Other => None,
        }
    }
}

/// One call of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Everything, as it came.
    pub args: Vec<OsString>,
    pub subcommand: Subcommand,
    /// How many of `args` stand before the subcommand.
    pub globals: usize,
    /// Where errors are reported to the caller (`--log`).
    pub log: Option<PathBuf>,
    /// `--log-format json`: what containerd asks for.
    pub log_json: bool,
    /// `--bundle` of `create`.
    pub bundle: Option<PathBuf>,
    id: Option<OsString>,
}

impl Call {
    /// Reads the words after the program's own name. Never fails: what is not understood is passed on.
    pub fn parse(args: Vec<OsString>) -> Self {
        let mut call = Self {
            args,
            subcommand: Subcommand::Other,
            globals: 0,
            log: None,
            log_json: false,
            bundle: None,
            id: None,
        };
        let mut words = Words { args: call.args.clone(), at: 0 };
        while let Some((name, value)) = words.flag(&GLOBAL_WITH_VALUE) {
            match name.as_str() {
                "log" => call.log = value.map(PathBuf::from),
                "log-format" => call.log_json = value.is_some_and(|value| value == "json"),
                _ => {}
            }
        }
        call.globals = words.at;
        call.subcommand = match words.next().as_deref().and_then(OsStr::to_str) {
            Some("create") => Subcommand::Create,
            Some("start") => Subcommand::Start,
            Some("restore") => Subcommand::Restore,
            Some("run") => Subcommand::Run,
            Some("delete") => Subcommand::Delete,
            _ => return call,
        };
        loop {
            if let Some((name, value)) = words.flag(&CREATE_WITH_VALUE) {
                if name == "bundle" || name == "b" {
                    call.bundle = value.map(PathBuf::from);
                }
            } else if let Some(word) = words.next() {
                // The id stands last.
                call.id = Some(word);
            } else {
                return call;
            }
        }
    }

    /// The container's id, in the letters that runc allows.
    pub fn id(&self) -> Result<&str, RuntimeError> {
        let id = self.id.as_deref().ok_or(RuntimeError::NoId)?;
        let text = id.to_str().filter(|text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
            !text.starts_with('.') && text.chars().all(fits) && !text.is_empty()
        });
        text.ok_or_else(|| RuntimeError::InvalidId(id.to_string_lossy().into_owned()))
    }

    /// The words before the subcommand, for further calls about the same container.
    pub fn global_args(&self) -> &[OsString] {
        &self.args[..self.globals]
    }
}

struct Words {
    args: Vec<OsString>,
    at: usize,
}

impl Words {
    fn next(&mut self) -> Option<OsString> {
        let word = self.args.get(self.at).cloned();
        self.at += usize::from(word.is_some());
        word
    }

    /// The next word, if it is a flag, without its dashes; and its value, from the same word or, for
    /// the flags in `with_value`, from the next.
    fn flag(&mut self, with_value: &[&str]) -> Option<(String, Option<OsString>)> {
        let word = self.args.get(self.at)?.to_str()?.to_owned();
        let name =
            word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|name| !name.is_empty())?;
        self.at += 1;
        if let Some((name, value)) = name.split_once('=') {
            return Some((name.to_owned(), Some(value.into())));
        }
        let value = if with_value.contains(&name) { self.next() } else { None };
        Some((name.to_owned(), value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(line: &str) -> Call {
        Call::parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn the_command_lines_of_containerd_are_understood() {
        let call =
            call("--root /run/r --log /x/log.json --log-format json create --bundle /b --pid-file /b/p abc");
        assert_eq!(call.subcommand, Subcommand::Create);
        assert_eq!(call.id().unwrap(), "abc");
        assert_eq!((call.log.unwrap(), call.bundle.unwrap()), ("/x/log.json".into(), "/b".into()));
        assert!(call.log_json);
        assert_eq!(call.globals, 6);
    }

    #[test]
    fn other_spellings_of_the_flags_are_understood() {
        let call = call("--debug --systemd-cgroup --root=/r -log=/l start abc");
        assert_eq!((call.subcommand, call.id().unwrap()), (Subcommand::Start, "abc"));
        assert_eq!(call.log, Some("/l".into()));
        assert_eq!(call.global_args().len(), 4);
        assert_eq!(super::Call::parse(vec![]).subcommand, Subcommand::Other);
    }

    #[test]
    fn what_starts_a_workload_by_itself_is_known() {
        for (line, subcommand) in [
            ("--root /run/r --log-format json run --bundle /b --detach abc", Subcommand::Run),
            (
                "--systemd-cgroup restore --image-path /i --work-path /w -d --bundle /b abc",
                Subcommand::Restore,
            ),
        ] {
            let call = call(line);
            assert_eq!((call.subcommand, call.id().unwrap()), (subcommand, "abc"), "{line}");
        }
    }

    #[test]
    fn a_value_is_no_subcommand() {
        assert_eq!(call("--root /run/r delete --force abc").subcommand, Subcommand::Delete);
        for line in [
            "--root run kill abc 9",
            "--root start kill abc 9",
            "exec abc run",
            "features",
            "--version",
            "state start",
            "exec -t start sh",
        ] {
            assert_eq!(call(line).subcommand, Subcommand::Other, "{line}");
        }
    }

    #[test]
    fn ids_that_lead_elsewhere_are_refused() {
        for id in ["../../etc", ".", "a/b", "a b"] {
            let call = Call::parse(vec!["start".into(), id.into()]);
            assert!(call.id().is_err(), "{id}");
        }
        assert!(matches!(call("start").id(), Err(RuntimeError::NoId)));
    }

    proptest! {
        #[test]
        fn arguments_are_passed_on_unchanged(words in prop::collection::vec("-{0,2}[a-z=/]{0,8}", 0..8)) {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            let call = Call::parse(args.clone());
            prop_assert_eq!(&call.args, &args);
            prop_assert!(call.globals <= args.len());
        }

        #[test]
        fn flags_before_start_do_not_hide_it(
            flags in prop::collection::vec(prop_oneof![
                Just("--debug"), Just("--systemd-cgroup"), Just("--root=/x"), Just("--root /y"),
                Just("--log /z"), Just("--log-format=text"), Just("--criu c"),
            ], 0..6),
            id in "[0-9a-f]{64}",
        ) {
            let call = call(&format!("{} start {id}", flags.join(" ")));
            prop_assert_eq!(call.subcommand, Subcommand::Start);
            prop_assert_eq!(call.id().unwrap(), id);
        }
    }
}
