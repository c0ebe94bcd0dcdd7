//! How long every call to an outside service may take, and what happens when the time is over.
//!
//! No wait is without an end, and a kill is heard during each of them: a peer that accepts a connection and never
//! answers costs a task these times and no more. `tests` below holds the table to the constants.
//!
//! | peer | call | limit | | afterwards |
//! | --- | --- | --- | --- | --- |
//! | Docker | find its address, connect, ping | 5 s | `DOCKER_HELLO` | retried for `launch.retry_for` |
//! | Docker | find the process that listens on its socket | 1 s | `DOCKER_LISTENER` | every dockerd of the host counts |
//! | Docker | create | 120 s | `DOCKER_CREATE` | retried for `launch.retry_for` |
//! | Docker | its security options, once in its life | 5 s | `DOCKER_INFO` | the launch goes on |
//! | Docker | look for an image | 30 s | `DOCKER_LOOK` | three tries |
//! | Docker | a pull without any sign of life | 600 s | `DOCKER_PULL_SILENCE` | retried for `launch.retry_for` |
//! | Docker | attach, kill, remove, list containers, an exec's calls | 20 s | `DOCKER_CALL` | kill and remove: three tries |
//! | Docker | stop, besides the grace period | 20 s | `DOCKER_CALL` | killed instead; at last without Docker |
//! | Docker | register a wait | 10 s | `DOCKER_REGISTER` | the launch fails; later: asked again |
//! | Docker | inspect | 5 s | `DOCKER_INSPECT` | six tries at a launch, else one |
//! | Docker | look at a container whose end it has missed | 15 s | `DOCKER_NUDGE` | made to look again, for a minute |
//! | Docker | answer a wait, once the process has gone | 2 s | `DOCKER_LAG` | asked for the exit code |
//! | Docker | the exit code, once the process has gone | 60 s | `DOCKER_EXIT_CODE` | the task fails: its exit code is unknown |
//! | Docker | whether a failed task was out of memory | 1 s | `DOCKER_OUT_OF_MEMORY` | the status does not mention memory |
//! | Docker | start of a Calico task, besides `runtime.gate_timeout` | 10 s | `START_BESIDES_GATE` | the launch fails |
//! | Docker | start of a task without Calico | 300 s | `START_WITHOUT_GATE` | the launch fails |
//! | Docker | start a container that was prepared for it, and after the gate was asked | 120 s | `KNOCK` | all is given back |
//! | Docker | kill what a failed start of a task without Calico has left | 5 s | `DOCKER_FAILED_START` | the agent removes it |
//! | Docker | a create or start under way when a kill comes | 15 s | `DOCKER_KILLED` | TASK_KILLED; the cleaner removes the container |
//! | Docker | the end of a task after its grace period | 15 s | `STOP_PATIENCE` | its process is killed without Docker |
//! | Docker | all of a teardown's calls | 20 s | `DOCKER_TEARDOWN` | the cleaner finishes |
//! | Docker | all of a cleaner's calls for one task | 60 s | `DOCKER_CLEANER` | the next cleaner |
//! | kernel | a whole teardown | 90 s | `TEARDOWN` | the terminal update; the teardown goes on, or the cleaner finishes |
//! | Consul | one request | 5 s | `CONSUL_REQUEST` | tried again, with pauses up to a minute |
//! | Consul | all that a terminal update waits for | 1 s | `CONSUL_BEFORE_UPDATE` | the cleaner finishes |
//! | Consul | all of a cleaner's requests for one task | 5 s | `CONSUL_CLEANER` | the next cleaner |
//! | etcd | connect; all endpoints at once | 3 s | `ETCD_CONNECT` | retried for `launch.retry_for` |
//! | etcd | login, or one request | 5 s | `ETCD_REQUEST` | the next endpoint; a write is looked for |
//! | etcd | find out whether TLS is the reason of a failure | 1 s | `ETCD_TLS_PROBE` | reported as a failure of another kind |
//! | etcd | a write whose answer is lost, at the gate | 15 s | `ETCD_AT_THE_GATE` | the launch fails; the teardown rules the write out |
//! | etcd | a write under way when a kill comes | 1 s | `ETCD_KILLED` | TASK_KILLED; the teardown rules the write out |
//! | etcd | the release that a terminal update waits for | 1 s | `ETCD_BEFORE_UPDATE` | the cleaner finishes |
//! | etcd | a cleaner's release of one task | 20 s | `ETCD_CLEANER` | the next cleaner |
//! | etcd | a cleaner's count of all pools' addresses | 10 s | `ETCD_FIGURES` | no figures of the pools this time |
//! | etcd | a cleaner's writing again of what was lost | 20 s | `ETCD_RESTORE` | the next cleaner |
//! | etcd | how far back its history reaches | 1 s | `ETCD_HISTORY` | `status` reports it as unknown |
//! | name server | one try for one name | 2 s | `NAME_SERVER` | a second try, the next server |
//! | agent | connect | 5 s | `AGENT_CONNECT` | tried again within the recovery timeout |
//! | agent | answer a call | 15 s | `AGENT_ANSWER` | a new connection; updates are sent again |
//! | agent | take an answer of a hundred bytes | 1 s | `AGENT_TAKES` | no more answers on this connection |
//! | agent | acknowledge the last update | 60 s | `AGENT_ACKNOWLEDGEMENT` | the executor ends |
//! | all | all that a custom executor's terminal update waits for | 1 s | `CUSTOM_BEFORE_UPDATE` | finished after it, or by the cleaner |
//! | all | a cleaner's removal of what no journal names | 10 s | `ORPHANS` | the next cleaner |
//! | all | one question of `calico-mesos run` about what is left | 10 s | `RUN_LOOK` | reported as unknown |
//! | all | one question of `calico-mesos status` | 5 s | `STATUS_LOOK` | reported as a problem |
//! | all | one part of `calico-mesos diags` | 15 s | `DIAGS_PART` | a line in its `errors.txt`; the rest goes on |
//! | all | one question of `calico-mesos task show` | 5 s | `TASK_LOOK` | reported in its place |
//! | client | send the head of a request to the proxy, from its first byte on | 10 s | `PROXY_HEAD` | the connection is closed |
//! | client | take the proxy's answer and stop an upload | 1 s | `PROXY_DRAIN` | the connection is closed |
//! | Docker | find a container by its name, for the proxy | 500 ms | `PROXY_NAME` | looked for in the list |
//! | Docker | tell the proxy whether to read a body (`100-continue`) | 1 s | `PROXY_CONTINUE` | the client is asked for it |
//! | all | the connections of a proxy that ends | 1 s | `PROXY_END` | they are cut |
//! | etcd | names that a shell completes | 200 ms | `ETCD_COMPLETION` | nothing is completed |
//! | URI | each program that fetches or unpacks, in `run` | 900 s | `FETCH` | the launch fails |
//!
//! Calico's lock file is waited for 1 s by a launch and 200 ms by a release ([`IPAM_LOCK`], [`IPAM_LOCK_RELEASE`]);
//! both go on without it. Felix is waited for `policy.timeout`, see `task/felix.rs`. Three waits end with the task
//! alone and listen to kills meanwhile: Docker's answer to `wait`, the attached output, and the agent's event stream,
//! which is given up after two missed heartbeats.

use std::time::Duration;

pub const DOCKER_HELLO: Duration = Duration::from_secs(5);
/// Only asks the kernel, unless the socket's queue is full.
pub const DOCKER_LISTENER: Duration = Duration::from_secs(1);
/// Docker may unpack or copy the image's volumes meanwhile.
pub const DOCKER_CREATE: Duration = Duration::from_secs(120);
/// 20.10 takes some 15 ms, since it runs other programs for it.
pub const DOCKER_INFO: Duration = Duration::from_secs(5);
pub const DOCKER_LOOK: Duration = Duration::from_secs(30);
/// Layers are unpacked in less.
pub const DOCKER_PULL_SILENCE: Duration = Duration::from_secs(600);
/// Twice what a busy daemon needs.
pub const DOCKER_CALL: Duration = Duration::from_secs(20);
pub const DOCKER_REGISTER: Duration = Duration::from_secs(10);
/// The stock executor's limit.
pub const DOCKER_INSPECT: Duration = Duration::from_secs(5);
/// Docker 20.10 waits 10 s for news that may be under way.
pub const DOCKER_NUDGE: Duration = Duration::from_secs(15);
/// Usually 40 to 70 ms.
pub const DOCKER_LAG: Duration = Duration::from_secs(2);
/// As the stock executor.
pub const DOCKER_EXIT_CODE: Duration = Duration::from_secs(60);
/// No terminal update may depend on it.
pub const DOCKER_OUT_OF_MEMORY: Duration = Duration::from_secs(1);
/// calico-runc gives up by itself when the gate's time is over; that answer gets so long.
pub const START_BESIDES_GATE: Duration = Duration::from_secs(10);
/// A volume driver may attach a disk first; Marathon's own limit for a launch.
pub const START_WITHOUT_GATE: Duration = Duration::from_secs(300);
/// Longer than any `runtime.gate_timeout` that makes sense, and than Docker takes before it calls its runtime.
pub const KNOCK: Duration = Duration::from_secs(120);
pub const DOCKER_FAILED_START: Duration = Duration::from_secs(5);
/// Less than [`DOCKER_TEARDOWN`] by what a last `docker kill` may take.
pub const DOCKER_KILLED: Duration = Duration::from_secs(15);
pub const STOP_PATIENCE: Duration = Duration::from_secs(15);
pub const DOCKER_TEARDOWN: Duration = Duration::from_secs(20);
pub const DOCKER_CLEANER: Duration = Duration::from_secs(60);

/// Twice what all limits of its parts come to: only a kernel that hangs makes it last so long.
pub const TEARDOWN: Duration = Duration::from_secs(90);

/// To an agent on the same host.
pub const CONSUL_REQUEST: Duration = Duration::from_secs(5);
pub const CONSUL_BEFORE_UPDATE: Duration = Duration::from_secs(1);
pub const CONSUL_CLEANER: Duration = Duration::from_secs(5);

pub const ETCD_CONNECT: Duration = Duration::from_secs(3);
pub const ETCD_REQUEST: Duration = Duration::from_secs(5);
pub const ETCD_TLS_PROBE: Duration = Duration::from_secs(1);
/// Docker holds the container's lock while it stands at the gate.
pub const ETCD_AT_THE_GATE: Duration = Duration::from_secs(15);
pub const ETCD_KILLED: Duration = Duration::from_secs(1);
/// An app with a fixed address that starts elsewhere on that update has to find it free.
pub const ETCD_BEFORE_UPDATE: Duration = Duration::from_secs(1);
pub const ETCD_CLEANER: Duration = Duration::from_secs(20);
/// etcd refuses what is compacted at once.
pub const ETCD_HISTORY: Duration = Duration::from_secs(1);
/// The next run of the cleaner tries again.
pub const ETCD_FIGURES: Duration = Duration::from_secs(10);

pub const ETCD_RESTORE: Duration = Duration::from_secs(20);

/// Launches wait for this, so it is shorter than the usual five seconds.
pub const NAME_SERVER: Duration = Duration::from_secs(2);

/// The lock only spares launches on one host each other's conflicts.
pub const IPAM_LOCK: Duration = Duration::from_secs(1);
/// A release has [`ETCD_BEFORE_UPDATE`] in all.
pub const IPAM_LOCK_RELEASE: Duration = Duration::from_millis(200);

pub const AGENT_CONNECT: Duration = Duration::from_secs(5);
/// An agent answers at once, unless it hangs.
pub const AGENT_ANSWER: Duration = Duration::from_secs(15);
/// An agent that does not read can still launch and kill.
pub const AGENT_TAKES: Duration = Duration::from_secs(1);
/// The stock executor's bound.
pub const AGENT_ACKNOWLEDGEMENT: Duration = Duration::from_secs(60);

/// An agent that cannot fit the container to what is left of its resources, which is nothing where the ExecutorInfo has
/// none, destroys the executor as soon as it has the last update.
pub const CUSTOM_BEFORE_UPDATE: Duration = Duration::from_secs(1);
/// What no record names can wait; tasks that end meanwhile cannot.
pub const ORPHANS: Duration = Duration::from_secs(10);
pub const STATUS_LOOK: Duration = Duration::from_secs(5);
/// The slowest is `status`, whose questions wait for services that hang.
pub const DIAGS_PART: Duration = Duration::from_secs(15);
pub const TASK_LOOK: Duration = Duration::from_secs(5);
/// A person waits for it at the keyboard.
pub const ETCD_COMPLETION: Duration = Duration::from_millis(200);
pub const RUN_LOOK: Duration = Duration::from_secs(10);
/// A gigabyte at ten megabits per second.
pub const FETCH: Duration = Duration::from_secs(900);

/// Headers are small, and a client that sends them slowly holds a connection.
pub const PROXY_HEAD: Duration = Duration::from_secs(10);
/// Twice what Docker's own server waits, which does not read meanwhile.
pub const PROXY_DRAIN: Duration = Duration::from_secs(1);
/// A client's own patience is as long.
pub const PROXY_CONTINUE: Duration = Duration::from_secs(1);
/// Docker answers nothing about a container while a start of it waits for its network. Its list does not wait.
pub const PROXY_NAME: Duration = Duration::from_millis(500);
pub const PROXY_END: Duration = Duration::from_secs(1);
/// As many as a busy host has streams; each may take two descriptors.
pub const PROXY_CONNECTIONS: usize = 4096;
/// Of a request or an answer, as Docker's own server takes them.
pub const PROXY_HEADERS: usize = 1000;
/// A head of 1 MiB and a little, in bytes.
pub const PROXY_HEADERS_SIZE: usize = 1_100_000;
/// Of one read from either side, in bytes. The HTTP library takes up to a head's size at once, and queues sixteen.
pub const PROXY_READ: usize = 128 << 10;
/// Of a request's body that the proxy has to read before it goes on, in bytes: a container's description.
pub const PROXY_BODY: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    const CALLS: [&str; 3] = ["timeout(", "inspect_once(", "elapsed() > "];
    /// Time limits of no call to an outside service: what is waited for is a process, a pipe or a pause.
    const OTHERS: [&str; 11] = [
        "calico::settle PAUSE",
        "cli::node::mod LINGERING",
        "cli::run::hook PATIENCE",
        "net::lock LIMIT",
        "runtime::start REAP_LIMIT",
        "task::work::mod LOG_DRAIN",
        "task::work::stop DYING",
        "workload::logs SETTLE",
        "workload::remains DYING",
        "workload::remains LAG",
        "workload::wait NUDGE_EVERY",
    ];

    /// `NAME` and seconds of each row of the table, and of each constant in whole seconds.
    #[test]
    fn the_table_has_every_limit_with_its_value() {
        let text = include_str!("limits.rs");
        let rows = text.lines().filter(|line| line.starts_with("//! | ")).filter_map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            let seconds = cells.get(3)?.strip_suffix(" s")?.to_owned();
            Some((cells.get(4)?.trim_matches('`').to_owned(), seconds))
        });
        let constants = text.lines().filter_map(|line| {
            let (name, value) =
                line.strip_prefix("pub const ")?.split_once(": Duration = Duration::from_secs(")?;
            (name != "IPAM_LOCK").then(|| (name.to_owned(), value.trim_end_matches(");").to_owned()))
        });
        let (rows, constants): (BTreeMap<_, _>, BTreeMap<_, _>) = (rows.collect(), constants.collect());
        assert!(rows.len() > 20, "{rows:?}");
        assert_eq!(rows, constants);
    }

    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            match path.is_dir() {
                // The daemons of local runs and tests are waited for while they start.
                true if !name.ends_with("src/rig/daemons") => sources(&path, found),
                false if name.ends_with(".rs") && !name.ends_with("tests.rs") => found.push(name),
                _ => {}
            }
        }
    }

    /// A constant that ends a wait stands in the table: what is an argument of a function with a time limit, what the
    /// time that has gone by is compared with, and what a file calls a limit.
    #[test]
    fn every_time_limit_of_a_call_is_in_the_table() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        sources(&root.join("src"), &mut files);
        assert!(files.len() > 200, "{}", files.len());
        let words = |text: &str| -> BTreeSet<String> {
            text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
                .map(str::to_owned)
                .collect()
        };
        let mut elsewhere = BTreeSet::new();
        for file in files.iter().filter(|file| !file.ends_with("/limits.rs")) {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
            let ends_a_wait: BTreeSet<String> = CALLS
                .iter()
                .flat_map(|call| code.split(call).skip(1))
                .flat_map(|rest| words(rest.split([';', '{']).next().unwrap_or(rest)))
                .collect();
            let own = code.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("const "));
            for name in own.filter_map(|line| line.split_once(": Duration").map(|(name, _)| name)) {
                if ends_a_wait.contains(name) || name.ends_with("LIMIT") {
                    let module = file.trim_start_matches(&format!("{}/src/", root.display()));
                    let module = module.trim_end_matches(".rs").replace('/', "::");
                    elsewhere.insert(format!("{module} {name}"));
                }
            }
            let number =
                code.lines().find(|line| line.contains("timeout(") && line.contains("Duration::from_"));
            assert_eq!(number, None, "{file}");
        }
        let others = OTHERS.map(str::to_owned);
        assert_eq!(elsewhere, BTreeSet::from(others));
    }
}
