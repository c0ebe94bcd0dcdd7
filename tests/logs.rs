//! Log files that many processes write at once, and what becomes of them when the disk does not play along.
//!
//! The writers are this very program, started again with [`WRITER`] in their environment.

mod kit;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use calico_mesos::config::Config;
use calico_mesos::logging::{Component, Rotated};
use kit::wait;

/// `<number> <lines> <folder>`.
const WRITER: &str = "CALICO_MESOS_LOG_WRITER";
const WRITERS: usize = 100;
const LENGTH: u64 = 100_000;
const PIECES: u32 = 10;

/// As the runtime's log, by the sizes of a configuration.
fn log(folder: &Path) -> Rotated {
    let mut config = Config::default();
    config.paths.log = folder.into();
    (config.log.file_size.0, config.log.files) = (LENGTH, PIECES);
    Component::Runtime.rotated(&config)
}

/// Writes its lines as soon as all writers are there. They differ in length, and each says how long it is.
fn write_lines(what: &str) {
    let [number, lines, folder]: [&str; 3] = what.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    let (folder, lines) = (PathBuf::from(folder), lines.parse::<usize>().unwrap());
    fs::write(folder.join(format!("ready.{number}")), "").unwrap();
    wait::blocking(wait::LIMIT, "all writers are there", || folder.join("go").exists());
    let log = log(&folder);
    for line in 0..lines {
        let text = format!("{number} {line} {}.", "x".repeat(100 + line * 37 % 400));
        // A busy machine may stop the writer that rotates for longer than a line waits: then it has not been written.
        wait::blocking(wait::LIMIT, "a line has room", || log.append(&text));
    }
}

fn start(number: usize, lines: usize, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_hundred_processes_write_at_once", "--nocapture"])
        .env(WRITER, format!("{number} {lines} {}", folder.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// All pieces, the oldest first.
fn pieces(folder: &Path) -> Vec<String> {
    let pieces = Component::Runtime.pieces(folder).unwrap();
    pieces.into_iter().map(|(_, piece)| std::io::read_to_string(piece).unwrap()).collect()
}

/// The numbers of the lines that each writer finds in the pieces.
fn lines(pieces: &[String]) -> BTreeMap<usize, Vec<usize>> {
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for line in pieces.iter().flat_map(|piece| piece.lines()).filter(|line| !line.is_empty()) {
        let [writer, number, rest] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let number: usize = number.parse().unwrap();
        assert_eq!(rest.len(), 101 + number * 37 % 400, "torn: {line}");
        found.entry(writer.parse().unwrap()).or_default().push(number);
    }
    found
}

fn run(lines: usize, before: Option<&str>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    if let Some(before) = before {
        fs::write(folder.path().join("calico-runc.log"), before).unwrap();
    }
    let writers: Vec<Child> = (0..WRITERS).map(|number| start(number, lines, folder.path())).collect();
    let ready = || fs::read_dir(folder.path()).unwrap().count() >= WRITERS + usize::from(before.is_some());
    wait::blocking(wait::LIMIT, "all writers are ready", ready);
    fs::write(folder.path().join("go"), "").unwrap();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    pieces(folder.path())
}

#[test]
fn a_hundred_processes_write_at_once() {
    if let Ok(what) = std::env::var(WRITER) {
        return write_lines(&what);
    }
    // As much as there is room for: nothing is lost, nor what the release before has written.
    let mut kept = run(25, Some("of the release before\n"));
    assert!(kept.len() > 5 && kept.iter().all(|piece| piece.ends_with('\n')));
    let (first, rest) = kept[0].split_once('\n').unwrap();
    assert_eq!(first, "of the release before");
    kept[0] = rest.to_owned();
    let expected: BTreeMap<_, _> = (0..WRITERS).map(|number| (number, (0..25).collect())).collect();
    assert_eq!(lines(&kept), expected);

    // Three times as much: only the oldest is lost.
    let kept = run(100, None);
    assert_eq!(kept.len(), PIECES as usize);
    for piece in &kept {
        // Twice, and what each writer may add that has looked before.
        assert!(piece.len() < 2 * LENGTH as usize + WRITERS * 600, "a piece of {} bytes", piece.len());
    }
    let total: usize = kept.iter().map(String::len).sum();
    assert!(total as u64 > LENGTH * u64::from(PIECES - 2), "only {total} bytes are left");
    for (writer, found) in lines(&kept) {
        let expected: Vec<usize> = (100 - found.len()..100).collect();
        assert_eq!(found, expected, "of writer {writer}");
    }
}

/// A file system of a few pages of its own, seen by the script alone.
fn on_a_small_disk(folder: &Path, script: &str) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", "mount -t tmpfs -o size=32k tmpfs \"$1\"; shift; eval \"$1\"", "sh"])
        .arg(folder)
        .arg(script)
        .env(RUNTIME_CONFIG, folder.with_extension("toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const RUNTIME_CONFIG: &str = "CALICO_MESOS_CONFIG";

/// Docker is away, and no client comes: what the proxy says of itself stands at both places.
#[test]
fn the_proxys_lines_are_in_its_log_and_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = format!(
        "[paths]\nrun = {:?}\nstate = {:?}\nlog = {:?}\n[log]\nfile_size = \"64KB\"\nfiles = 3\n\
         [proxy]\nlisten = \"\"\nsocket = {:?}\ndocker = \"unix://{}\"\n",
        path("run"),
        path("state"),
        path("log"),
        path("run/docker.sock"),
        path("none.sock").display()
    );
    fs::write(path("config.toml"), text).unwrap();
    let current = path("log/proxy/current");
    let written = || fs::read_to_string(&current).unwrap_or_default();
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_calico-mesos"))
        .arg("--config")
        .arg(path("config.toml"))
        .arg("proxy")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait::blocking(wait::LIMIT, "the proxy listens", || written().contains("listening at "));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(proxy.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let told = std::io::read_to_string(proxy.stderr.take().unwrap()).unwrap();
    assert!(proxy.wait().unwrap().success(), "{told}");
    assert!(told.contains(" ended: ") && told.starts_with('I'), "{told}");
    assert_eq!(written(), told);
}

/// Of calico-runc each call is a process, and each refusal a line.
#[test]
fn a_full_disk_changes_nothing_for_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let text =
        format!("[paths]\nrun = \"{}\"\nlog = \"{}\"\n", folder.path().join("run").display(), disk.display());
    fs::write(disk.with_extension("toml"), text).unwrap();
    let runc = env!("CARGO_BIN_EXE_calico-runc");
    let told = on_a_small_disk(
        &disk,
        &format!(
            "call() {{ {runc} create --bundle / c1 2>&1 || echo $?; }}
             call
             dd if=/dev/zero of={0}/filler bs=1k count=64 2> /dev/null || true
             for i in $(seq 200); do call; done
             rm {0}/filler
             call
             echo LOG
             cat {0}/runtime/current",
            disk.display()
        ),
    );
    let (calls, log) = told.split_once("LOG\n").unwrap();
    let (calls, log): (Vec<&str>, Vec<&str>) = (calls.lines().collect(), log.lines().collect());
    // Each call says the same, with a full disk or without, and nothing else.
    assert_eq!(calls.len(), 2 * 202);
    assert!(calls.iter().all(|line| *line == calls[0] || *line == "1"), "{told}");
    assert!(calls[0].starts_with("calico-runc: no network namespace was prepared"), "{told}");
    // Only the line for which the disk was too small is cut off, and it spoils no other.
    let whole = |line: &&&str| line.contains(" create c1 after ") && line.contains(": refused: no network");
    assert!(log.len() >= 2 && log.iter().filter(whole).count() >= log.len() - 1, "{told}");
    assert!(log.last().iter().all(whole) && log[0].starts_with("20"), "{told}");
}

/// Not root: no file, and no word about it.
#[test]
fn others_than_root_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), open).unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, format!("[paths]\nlog = \"{}\"\n", folder.path().join("log").display())).unwrap();
    let program = folder.path().join("calico-runc");
    fs::copy(env!("CARGO_BIN_EXE_calico-runc"), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["create", "--bundle", "/", "c1"])
        .env(RUNTIME_CONFIG, &config)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("calico-runc: ") && told.lines().count() == 1, "{told}");
    assert!(!folder.path().join("log").exists());
}
