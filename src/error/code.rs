//! The failure codes: one enum with what each code means, who is to blame and what to do.
//!
//! A code ends every TASK_FAILED message, stands in the audit trail and in the journal's last line, and is what
//! dashboards and search engines find. Its name is stable and no code means two things. The table below is the only
//! place that spells the names: `calico-mesos explain` prints it, and README.md repeats it, held by
//! `tests/architecture.rs`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether another attempt on this host can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The app definition requests something impossible: the task fails at once.
    App,
    /// This host or the cluster cannot do it now: retried until `launch.retry_for` has passed, so
    /// that one broken agent does not eat a whole deployment in seconds.
    Host,
}

/// Who has to act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The author of the app definition.
    App,
    /// The operator of this agent host: something on it is broken, full or away.
    Host,
    /// The operator of Calico's datastore, which all hosts share.
    Cluster,
    /// The operator who configured this agent host.
    Operator,
    /// The developers of calico-mesos.
    Project,
    /// No one: the task was stopped.
    Nothing,
}

impl Party {
    /// The word for tables and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Host => "host",
            Self::Cluster => "cluster",
            Self::Operator => "operator",
            Self::Project => "calico-mesos",
            Self::Nothing => "none",
        }
    }

    /// The same for people, in a noun phrase.
    pub const fn description(self) -> &'static str {
        match self {
            Self::App => "the app definition",
            Self::Host => "the agent host",
            Self::Cluster => "the Calico cluster",
            Self::Operator => "the configuration of the agent host",
            Self::Project => "calico-mesos itself",
            Self::Nothing => "nothing: the task was stopped",
        }
    }

    const fn blame(self) -> Blame {
        match self {
            Self::App => Blame::App,
            _ => Blame::Host,
        }
    }
}

/// The table's row of one code.
struct Entry {
    name: &'static str,
    party: Party,
    meaning: &'static str,
    advice: &'static str,
}

macro_rules! codes {
    ($($variant:ident $name:literal $party:ident $meaning:literal $advice:literal)+) => {
        /// Why a task failed, in one stable word such as `CM-IP-TAKEN`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            const fn entry(self) -> Entry {
                match self {
                    $(Self::$variant => Entry {
                        name: $name,
                        party: Party::$party,
                        meaning: $meaning,
                        advice: $advice,
                    },)+
                }
            }
        }
    };
}

codes! {
    IpInvalid "CM-IP-INVALID" App
        "`CALICO_IP` has a value that is not `auto`, `auto6`, an address or a list of them, or that cannot be read."
        "Set `CALICO_IP` to `auto`, `auto6`, or addresses of the cluster's IP pools."
    ProfileInvalid "CM-PROFILE-INVALID" App
        "`CALICO_PROFILE` has a value that is not the name of a Calico profile."
        "Use lower-case letters, digits, dashes and dots; separate several profiles by commas."
    PortInvalid "CM-PORT-INVALID" App
        "`SERVICE_PORT` has a value that is not a port or a list of ports."
        "Set `SERVICE_PORT` to a port such as `3000`, or to a list such as `80,https:443`."
    IpOutside "CM-IP-OUTSIDE" App
        "The address in `CALICO_IP` belongs to none of the enabled IP pools."
        "Use `CALICO_IP=auto`, or an address of a pool that the message names."
    PoolDisabled "CM-POOL-DISABLED" App
        "The address in `CALICO_IP` belongs to an IP pool that is disabled."
        "Use `CALICO_IP=auto` or an address of another pool, or have the operator enable this pool."
    PoolInvalid "CM-POOL-INVALID" App
        "`CALICO_POOL` names no IP pool that this task can use: one that does not exist, is disabled, serves other nodes or has no address of the requested kind."
        "Name a pool that the message lists, or leave `CALICO_POOL` out."
    IpStrict "CM-IP-STRICT" App
        "The address in `CALICO_IP` lies in the block of another node, and strict affinity forbids to borrow it."
        "Use `CALICO_IP=auto`, or pin the app to the node that the message names."
    IpTaken "CM-IP-TAKEN" App
        "Another task or workload holds the address in `CALICO_IP`; the message names it and its node."
        "Use `CALICO_IP=auto`, or stop the holder first. In Marathon: `upgradeStrategy` with `minimumHealthCapacity` 0 and `maximumOverCapacity` 0."
    NotAllowed "CM-NOT-ALLOWED" App
        "The operator does not allow what the app asks for: `limits` in config.toml or the use that a pool is for."
        "Ask for what the message allows, or have the operator change the setting."
    Image "CM-IMAGE" App
        "The image does not exist, or its registry denies access to it."
        "Correct the name of the image, push it, or give the app the registry's credentials."
    Command "CM-COMMAND" App
        "The command does not exist in the image or on the agent, or cannot be executed."
        "Correct the command in the app definition; the message names the file."
    Root "CM-ROOT" App
        "The custom executor does not run as root, which network namespaces and other users need."
        "Set the app's `user` to root, or run the Mesos agent with `--no-switch_user`."
    User "CM-USER" App
        "The user that the task names to run its command does not exist on the agent."
        "Correct `CALICO_USER` or the command's user, or have the operator create the account."
    Parameter "CM-PARAMETER" App
        "A Docker parameter of the app is unknown, wrong, not possible with Calico, or too new for Docker on the agent."
        "Correct or remove the parameter that the message names."
    Volume "CM-VOLUME" App
        "A volume would show a Calico task the folders or secrets of calico-mesos on the agent."
        "Mount a narrower folder."
    DockerRefused "CM-DOCKER-REFUSED" App
        "Docker refuses the container that the app describes: no command, an unknown network, runtime or capability, a wrong mount."
        "Correct what Docker's message names."
    Unsupported "CM-UNSUPPORTED" App
        "The task asks for a feature of Mesos that calico-mesos does not support."
        "Remove the feature that the message names."
    TaskInvalid "CM-TASK-INVALID" App
        "The app definition contradicts itself, lacks something, or has a value that no task can have."
        "Correct the field that the message names."
    Busy "CM-BUSY" App
        "The framework gave a second task to an executor that runs one task."
        "Let the framework start an executor per task, or use the custom executor for several."
    PortTaken "CM-PORT-TAKEN" Host
        "A host port of the task leads to another task, or another program listens on it; the message names both."
        "Stop the holder, or take the port out of the resources that the Mesos agent offers."
    Etcd "CM-ETCD" Cluster
        "etcd, which holds Calico's datastore, does not answer, or refuses the connection or the login."
        "Check that etcd answers at the address in the message, and `[etcd]` in config.toml."
    Contended "CM-CONTENDED" Cluster
        "Other hosts changed the same records of Calico's datastore again and again, so that no write succeeded."
        "Start the task again. If it happens often, use larger or more IP pools."
    NotReady "CM-NOT-READY" Cluster
        "Calico's datastore is locked, or was never initialised."
        "Unlock it with `calicoctl datastore migrate unlock`, or start calico/node once."
    NoNode "CM-NO-NODE" Cluster
        "Calico's datastore does not have this node."
        "Start calico/node on this host with the `NODENAME` that the message names."
    NoPool "CM-NO-POOL" Cluster
        "No IP pool gives addresses of the family to tasks on this node."
        "Make or enable a pool with `calicoctl`; the message says why each existing pool is left out."
    Exhausted "CM-EXHAUSTED" Cluster
        "No address is free in the IP pools for this node."
        "Add an IP pool or end other tasks. `calico-mesos gc` gives back what dead executors hold."
    Data "CM-DATA" Cluster
        "A record in Calico's datastore cannot be used; the message names its key."
        "Repair or delete that record."
    Endpoint "CM-ENDPOINT" Cluster
        "An endpoint of the task's name exists in Calico's datastore and belongs to something else."
        "Find out with `calicoctl get workloadendpoint` what made it, and delete it."
    Docker "CM-DOCKER" Host
        "Docker on the agent does not answer, or fails at a request."
        "Check that dockerd runs and listens at the address in the message, and read its log."
    DockerUnsuitable "CM-DOCKER-UNSUITABLE" Operator
        "Docker cannot run Calico tasks: it runs on another machine, without root, or with `userns-remap`."
        "Run Calico tasks with a dockerd of the agent host that runs as root, without `userns-remap`."
    ImagePull "CM-IMAGE-PULL" Host
        "The image cannot be pulled now: its registry does not answer, or Docker fails at the pull."
        "Check that the agent reaches the registry, and its disk; the same pull may succeed later."
    Runtime "CM-RUNTIME" Host
        "Docker on the agent does not have the runtime `calico`, or another program has that name."
        "Run `calico-mesos node install-runtime` on the agent."
    Name "CM-NAME" Host
        "A container of the task's name exists already on the agent."
        "Remove it with the command in the message."
    Net "CM-NET" Host
        "The kernel refuses a network namespace, interface, route or port rule for the task."
        "Read the cause in the message; another program that manages the network is the usual reason."
    Policy "CM-POLICY" Host
        "`policy.wait` is `required`, and Felix did not report that it programmed the task's endpoint."
        "Check that calico/node runs on the agent and writes endpoint reports, see `policy.wait` in README.md."
    Gate "CM-GATE" Host
        "The gate refused the start: the task's network was not ready in time, or `calico-runc` did not reach the executor."
        "Read the reason in the message and `/var/log/calico/runtime/current` on the agent."
    Host "CM-HOST" Host
        "A file, folder or process that the task needs cannot be made on the agent."
        "Read the cause in the message: usually a full or read-only disk, or a limit on processes."
    Journal "CM-JOURNAL" Host
        "The journal, which names what a task leaves behind, cannot be written."
        "Check the disk and the permissions of `paths.state` on the agent."
    Unsafe "CM-UNSAFE" Operator
        "Another user than root can change the configuration or a folder of calico-mesos, or read a secret."
        "Run the command in the message, which corrects owner or mode."
    Config "CM-CONFIG" Operator
        "config.toml, or another file that configures calico-mesos on the agent, cannot be read or has a mistake."
        "Correct the setting or file that the message names."
    AgentFlags "CM-AGENT-FLAGS" Operator
        "A flag of the Mesos agent, or a variable that it gives to executors, has a value that the executor cannot use."
        "Correct what the message names, and restart the agent."
    Killed "CM-KILLED" Nothing
        "The task or its executor was stopped before the task could start."
        "Nothing: the framework decides whether it starts the task again."
    Internal "CM-INTERNAL" Project
        "A fault of calico-mesos itself."
        "Report it with the executor's log, the file `stderr` in the task's sandbox."
}

impl Code {
    /// The stable name, e.g. `CM-IP-TAKEN`.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Who has to act.
    pub const fn party(self) -> Party {
        self.entry().party
    }

    /// Whether another attempt on this host can help.
    pub const fn blame(self) -> Blame {
        self.party().blame()
    }

    /// What the code means: one sentence, in Markdown.
    pub const fn meaning(self) -> &'static str {
        self.entry().meaning
    }

    /// What to do about it, in Markdown.
    pub const fn advice(self) -> &'static str {
        self.entry().advice
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that is not the name of a code of this release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown failure code {0:?}")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().find(|code| code.name() == text);
        found.copied().ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_a_unique_name_a_meaning_and_an_advice() {
        let names: HashSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let legal = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase());
            assert!(code.name().strip_prefix("CM-").is_some_and(|rest| rest.split('-').all(legal)), "{code}");
            for sentence in [code.meaning(), code.advice()] {
                assert!(sentence.len() > 20 && sentence.ends_with('.'), "{code}: {sentence}");
                assert!(!sentence.contains(['|', '\n']), "{code} has a row of a table: {sentence}");
            }
        }
    }

    #[test]
    fn names_are_read_and_written_as_the_same_strings() {
        for code in Code::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(text, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<Code>(&text).unwrap(), *code);
        }
        assert_eq!("CM-FROM-TOMORROW".parse::<Code>(), Err(UnknownCode("CM-FROM-TOMORROW".into())));
        assert!(serde_json::from_str::<Code>("\"CM-FROM-TOMORROW\"").is_err());
    }

    #[test]
    fn only_the_apps_faults_fail_at_once() {
        for code in Code::ALL {
            assert_eq!(code.blame() == Blame::App, code.party() == Party::App, "{code}");
        }
    }
}
