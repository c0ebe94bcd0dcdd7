//! Commands as workloads: real processes, held, let go, refused, and ended with all they have started.
//!
//! To be run as root in a private network namespace: `unshare --net` with `lo` up, as `make test` does.

mod kit;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use calico_mesos::error::{Blame, Code};
use calico_mesos::host::processes::Stat;
use calico_mesos::net::Namespace;
use calico_mesos::workload::{CommandError, CommandOutput, CommandSpec, Exit, Held, Process};
use kit::netlab::Lab;
use kit::wait::eventually;
use nix::sys::signal::Signal;

const EXECUTOR: &str = env!("CARGO_BIN_EXE_calico-executor");

/// A folder that everybody may use, in which the command runs.
struct Sandbox(tempfile::TempDir);

impl Sandbox {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test changes users: run it as root");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn shell(&self, script: &str) -> CommandSpec {
        self.words("/bin/sh", &["sh", "-c", script])
    }

    fn words(&self, program: &str, arguments: &[&str]) -> CommandSpec {
        CommandSpec {
            program: program.into(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            user: None,
            directory: self.0.path().to_owned(),
        }
    }
}

async fn hold(spec: &CommandSpec, namespace: Option<&Path>) -> Result<Held, CommandError> {
    Held::start_by(Path::new(EXECUTOR), spec, namespace, CommandOutput::ToErrors).await
}

async fn run(spec: &CommandSpec) -> Result<Process, CommandError> {
    hold(spec, None).await?.release().await
}

async fn code(spec: &CommandSpec) -> i64 {
    run(spec).await.unwrap().exit().await.unwrap().code
}

/// The first line of a real run's failure, as the framework would see it.
async fn refusal(spec: &CommandSpec) -> String {
    let failure = run(spec).await.unwrap_err().failure();
    assert_eq!((failure.code, failure.blame()), (Code::Command, Blame::App), "{failure}");
    failure.message
}

fn is_alive(pid: i32) -> bool {
    Stat::of(pid).is_some_and(|stat| !stat.is_dead())
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn a_command_waits_until_it_is_released_and_shows_nothing_meanwhile() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("echo ran > out; exit 7");
    spec.environment.insert("PASSWORD".into(), "secret".into());
    let held = hold(&spec, None).await.unwrap();
    let proc = |file: &str| fs::read(format!("/proc/{}/{file}", held.pid())).unwrap();
    assert_eq!(proc("cmdline"), b"calico-init\0");
    assert_eq!(proc("environ"), b"");
    assert!(!sandbox.path("out").exists());
    let pid = held.pid();
    let mut process = held.release().await.unwrap();
    assert_eq!(process.pid(), pid);
    assert_eq!(process.exit().await.unwrap(), Exit { code: 7, oom_killed: None });
    assert_eq!(sandbox.read("out"), "ran\n");
}

#[tokio::test]
async fn a_refused_command_does_not_start() {
    let sandbox = Sandbox::new();
    let held = hold(&sandbox.shell("echo ran > out"), None).await.unwrap();
    let pid = held.pid();
    held.refuse().await;
    assert!(!is_alive(pid) && !sandbox.path("out").exists());
}

/// What an executor leaves that is killed while the command waits.
#[test]
fn an_end_of_file_is_a_refusal() {
    let sandbox = Sandbox::new();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = std::process::Command::new(EXECUTOR);
    command.arg0("calico-init").env_clear().stdin(OwnedFd::from(theirs));
    let mut child = command.spawn().unwrap();
    drop(command);
    let spec = serde_json::to_string(&sandbox.shell("echo ran > out")).unwrap();
    ours.write_all(format!("{{\"command\":{spec},\"namespace\":null}}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(&ours).read_line(&mut answer).unwrap();
    assert_eq!(answer, "\"Ready\"\n");
    drop(ours);
    assert!(child.wait().unwrap().success());
    assert!(!sandbox.path("out").exists());
}

#[tokio::test]
async fn a_command_gets_its_own_environment_and_nothing_else() {
    let sandbox = Sandbox::new();
    // An open file that nobody marked to be closed.
    let leak = nix::unistd::dup(fs::File::open("/dev/zero").unwrap()).unwrap();
    let mut spec = sandbox.shell(
        "cat /proc/$$/environ > env; pwd -P > cwd; umask > umask; ls -l /proc/self/fd > fds; cat /proc/$$/stat > stat; cat /proc/self/status > status",
    );
    spec.environment.insert("TEXT".into(), "two\nlines = 'quoted'".into());
    assert_eq!(code(&spec).await, 0);
    drop(leak);
    assert_eq!(sandbox.read("env"), "PATH=/usr/bin:/bin\0TEXT=two\nlines = 'quoted'\0");
    assert_eq!(Path::new(sandbox.read("cwd").trim()), sandbox.0.path().canonicalize().unwrap());
    assert_eq!(sandbox.read("umask").trim().trim_start_matches('0'), "22");
    let fds = sandbox.read("fds");
    let open: Vec<&str> =
        fds.lines().filter_map(|line| line.split_once(" -> ")).map(|(left, _)| left).collect();
    // The fourth is the folder that ls reads.
    assert_eq!(open.len(), 4, "{fds}");
    assert!(fds.lines().any(|line| line.ends_with(" 0 -> /dev/null")), "{fds}");
    let stat = sandbox.read("stat");
    let fields: Vec<&str> = stat.split(' ').collect();
    assert_eq!((fields[0], fields[0]), (fields[4], fields[5]), "leader of its group and session");
    let status = sandbox.read("status");
    for set in ["SigBlk:\t", "SigIgn:\t"] {
        let mask = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        // Beyond the first 31 are the C library's own and those without a name.
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff, 0, "{set}{mask}");
    }
}

#[tokio::test]
async fn a_command_runs_as_its_user() {
    let sandbox = Sandbox::new();
    for (user, wanted) in
        [("nobody", "65534 65534 65534"), ("12345:54321", "12345 54321 54321"), ("root", "0 0")]
    {
        let mut spec = sandbox.shell("echo $(id -u) $(id -g) $(id -G) > out; cat /proc/$$/status > status");
        spec.user = Some(user.into());
        assert_eq!(code(&spec).await, 0);
        assert!(sandbox.read("out").starts_with(wanted), "{user}: {}", sandbox.read("out"));
        let capabilities = sandbox.read("status").contains("CapEff:\t0000000000000000\n");
        assert_eq!(capabilities, user != "root");
        fs::remove_file(sandbox.path("out")).unwrap();
        fs::remove_file(sandbox.path("status")).unwrap();
    }
    let mut spec = sandbox.shell("true");
    spec.user = Some("nobody-of-that-name".into());
    let failure = run(&spec).await.unwrap_err().failure();
    assert_eq!((failure.code, failure.blame()), (Code::User, Blame::App), "{failure}");
    assert!(failure.message.contains("nobody-of-that-name"), "{failure}");
    fs::create_dir(sandbox.path("roots")).unwrap();
    fs::set_permissions(sandbox.path("roots"), fs::Permissions::from_mode(0o700)).unwrap();
    (spec.user, spec.directory) = (Some("nobody".into()), sandbox.path("roots"));
    assert!(refusal(&spec).await.contains("Permission denied"));
}

#[tokio::test]
async fn a_command_is_found_in_its_own_path() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("bin")).unwrap();
    sandbox.write("bin/tool", b"#!/bin/sh\necho \"$0 $1\" > out\n", 0o755);
    let mut spec = sandbox.words("tool", &["tool", "a b"]);
    assert!(refusal(&spec).await.ends_with("tool is not in its PATH"));
    let path = format!("/nowhere:{}", sandbox.path("bin").display());
    spec.environment.insert("PATH".into(), path);
    assert_eq!(code(&spec).await, 0);
    assert_eq!(sandbox.read("out"), format!("{} a b\n", sandbox.path("bin/tool").display()));
    // Relative to where it starts, not to where the executor is.
    (spec.program, spec.environment) = ("bin/tool".into(), [].into());
    assert_eq!(code(&spec).await, 0);
    assert_eq!(sandbox.read("out"), "bin/tool a b\n");
    // A script for the shell that does not say so; and a task without a PATH gets the usual one.
    sandbox.write("script", b"id > out\n", 0o755);
    spec.program = "./script".into();
    assert_eq!(code(&spec).await, 0);
    assert!(sandbox.read("out").starts_with("uid=0"));
}

#[tokio::test]
async fn a_command_that_cannot_run_says_why() {
    let sandbox = Sandbox::new();
    let cases: [(PathBuf, &str); 5] = [
        (sandbox.path("missing"), "missing does not exist"),
        (sandbox.write("data", b"#!/bin/sh\n", 0o644), "may not be executed by the user 0"),
        (sandbox.write("orphan", b"#!/no/such/interpreter\n", 0o755), "interpreter that"),
        (sandbox.write("foreign", b"\x7fELF\0\0\0\0", 0o755), "not a program for this machine"),
        (sandbox.path("data/below"), "does not exist"),
    ];
    for (program, words) in cases {
        let message = refusal(&sandbox.words(&program.display().to_string(), &["x"])).await;
        assert!(message.contains(words), "{message}");
    }
    let huge = "x".repeat(200_000);
    let message = refusal(&sandbox.words("true", &["true", &huge])).await;
    assert!(message.contains("too long"), "{message}");
    let mut spec = sandbox.shell("true");
    spec.directory = sandbox.path("missing");
    assert!(refusal(&spec).await.contains("No such file or directory"));
}

#[tokio::test]
async fn a_command_lives_in_its_namespace() {
    let lab = Lab::new();
    let sandbox = Sandbox::new();
    let namespace = Namespace::create(&lab.path("ns")).await.unwrap();
    let mut spec = sandbox.shell("readlink /proc/self/ns/net > out; id -u >> out");
    spec.user = Some("nobody".into());
    let held = hold(&spec, Some(namespace.path())).await.unwrap();
    assert_eq!(namespace.processes(), [held.pid()]);
    assert_eq!(held.release().await.unwrap().exit().await.unwrap().code, 0);
    assert_eq!(sandbox.read("out"), format!("net:[{}]\n65534\n", namespace.inode()));
}

#[tokio::test]
async fn no_setuid_program_leads_out_of_its_namespace() {
    let lab = Lab::new();
    let sandbox = Sandbox::new();
    let namespace = Namespace::create(&lab.path("ns")).await.unwrap();
    // As somebody's sudo would be.
    sandbox.write("id", &fs::read("/usr/bin/id").unwrap(), 0o4755);
    let mut spec = sandbox.shell("./id -u > out");
    for (user, namespace, becomes) in [
        // A command without Calico is as free as under Mesos itself.
        ("nobody", None, "0\n"),
        ("nobody", Some(namespace.path()), "65534\n"),
        ("root", Some(namespace.path()), "0\n"),
    ] {
        spec.user = Some(user.into());
        let held = hold(&spec, namespace).await.unwrap();
        assert_eq!(held.release().await.unwrap().exit().await.unwrap().code, 0);
        assert_eq!(sandbox.read("out"), becomes, "{user}");
        fs::remove_file(sandbox.path("out")).unwrap();
    }
}

#[tokio::test]
async fn a_command_never_runs_in_a_wrong_namespace() {
    let sandbox = Sandbox::new();
    let plain = sandbox.write("plain", b"", 0o600);
    for (path, words) in [
        (plain.as_path(), "is not a network namespace"),
        (Path::new("/proc/self/ns/uts"), "is not a network namespace"),
        (Path::new("/proc/self/ns/net"), "is the network namespace of the host"),
        (Path::new("/no/such/namespace"), "No such file"),
    ] {
        let failure = hold(&sandbox.shell("true"), Some(path)).await.unwrap_err().failure();
        assert!(failure.blame() == Blame::Host && failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn a_signal_reaches_each_of_its_processes_once() {
    let sandbox = Sandbox::new();
    let member = sandbox.write(
        "member",
        b"trap 'echo term >> terms; exit 0' TERM\necho up >> ups\nwhile :; do sleep 0.01; done\n",
        0o755,
    );
    // A job in a group of its own, one in a session of its own, one in the leader's group; the leader
    // outlives them, because what it leaves is killed.
    let script = format!(
        "trap 'echo term >> terms' TERM; set -m; {0} & setsid {0} & set +m; {0} & echo up >> ups
        until [ \"$(wc -l < terms)\" -ge 4 ]; do sleep 0.01; done; exit 0",
        member.display()
    );
    sandbox.write("terms", b"", 0o666);
    let mut process = run(&sandbox.shell(&script)).await.unwrap();
    eventually("all four have begun", async || lines(&sandbox.path("ups")) == 4).await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit().await.unwrap().code, 0);
    assert_eq!(lines(&sandbox.path("terms")), 4);
    // Its number may be somebody else's now.
    process.signal(Signal::SIGKILL);
}

#[tokio::test]
async fn no_process_of_its_session_outlives_a_command() {
    let sandbox = Sandbox::new();
    let script = "trap '' TERM HUP; sleep 1000 & echo $! >> pids; (sleep 1000 & echo $! >> pids); kill -9 $$";
    assert_eq!(code(&sandbox.shell(script)).await, 128 + 9);
    let pids: Vec<i32> = sandbox.read("pids").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn no_process_of_a_command_outlives_its_executor() {
    let sandbox = Sandbox::new();
    let process = run(&sandbox.shell("sleep 1000 & echo $! > pid; wait")).await.unwrap();
    eventually("the job has begun", async || lines(&sandbox.path("pid")) == 1).await;
    let (pid, job) = (process.pid(), sandbox.read("pid").trim().parse().unwrap());
    drop(process);
    eventually("both are dead", async || !is_alive(pid) && !is_alive(job)).await;
}

#[tokio::test]
async fn a_program_that_is_not_ours_is_told_apart() {
    let spec = Sandbox::new().shell("true");
    let by = |program: &'static str| async {
        Held::start_by(Path::new(program), &spec, None, CommandOutput::Inherited).await.unwrap_err()
    };
    assert!(matches!(by("/bin/false").await, CommandError::Died(status) if status.code() == Some(1)));
    assert!(matches!(by("/no/such/program").await, CommandError::Start(_)));
}

/// Without root a command may run as it is, but not change its user or its network.
#[tokio::test]
async fn what_needs_root_is_said() {
    let sandbox = Sandbox::new();
    fs::copy(EXECUTOR, sandbox.path("calico-executor")).unwrap();
    let drop_root = format!(
        "#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups bash -c 'exec -a calico-init \"$0\"' {}\n",
        sandbox.path("calico-executor").display()
    );
    // The shell of the script would look for its programs in an empty PATH.
    let drop_root = drop_root.replace("exec setpriv", "PATH=/usr/bin:/bin; export PATH; exec setpriv");
    let executor = sandbox.write("as-nobody", drop_root.as_bytes(), 0o755);
    let start = |user: Option<&str>, namespace: Option<&'static str>| {
        let mut spec = sandbox.shell("id -u > out");
        spec.user = user.map(str::to_owned);
        let executor = executor.clone();
        async move { Held::start_by(&executor, &spec, namespace.map(Path::new), CommandOutput::ToErrors).await }
    };
    for (user, namespace) in [(Some("root"), None), (None, Some("/proc/1/ns/net"))] {
        let failure = start(user, namespace).await.unwrap_err().failure();
        assert_eq!((failure.code, failure.blame()), (Code::Root, Blame::App));
        assert!(failure.message.contains("root") && failure.message.contains("switch_user"), "{failure}");
    }
    for user in [None, Some("nobody")] {
        let mut process = start(user, None).await.unwrap().release().await.unwrap();
        assert_eq!(process.exit().await.unwrap().code, 0);
        assert_eq!(sandbox.read("out"), "65534\n");
    }
}
