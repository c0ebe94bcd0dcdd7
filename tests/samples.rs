//! The samples we ship say what is true.

use std::fs;
use std::path::Path;
use std::process::Command;

use calico_mesos::config::Config;

fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// An option behind one # (a default) or two (an example); prose has a space there.
fn option(line: &str) -> Option<(&str, bool)> {
    let behind = line.strip_prefix('#')?;
    let (text, is_default) = behind.strip_prefix('#').map_or((behind, true), |text| (text, false));
    text.starts_with(|c: char| c.is_ascii_lowercase()).then_some((text, is_default))
}

fn load(lines: impl Iterator<Item = String>) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), lines.collect::<Vec<_>>().join("\n")).unwrap();
    Config::load(file.path()).unwrap_or_else(|error| panic!("{}", calico_mesos::error::chain(&error)))
}

#[test]
fn the_sample_configuration_shows_the_defaults() {
    let sample = shipped("mesos/config.toml");
    assert_eq!(load(sample.lines().map(str::to_owned)), Config::default());

    let defaults_only = |line: &str| match option(line) {
        Some((text, true)) => text.to_owned(),
        _ => line.to_owned(),
    };
    assert_eq!(load(sample.lines().map(defaults_only)), Config::default());

    let everything = |line: &str| option(line).map_or(line, |(text, _)| text).to_owned();
    let config = load(sample.lines().map(everything));
    assert_eq!(config.node.name.as_deref(), Some("agent-17"));
}

#[test]
fn the_sample_configuration_names_every_option() {
    let sample = shipped("mesos/config.toml");
    let named: Vec<&str> =
        sample.lines().filter_map(option).filter_map(|(text, _)| text.split(' ').next()).collect();
    let config = serde_json::to_value(calico_mesos::config::Config::default()).unwrap();
    let sections = config.as_object().unwrap().values();
    let fields: Vec<&str> =
        sections.flat_map(|section| section.as_object().unwrap().keys()).map(String::as_str).collect();
    assert!(fields.len() > 25, "{fields:?}");
    // A hook for tests, which released programs do not have.
    let is_missing = |field: &&&str| !named.contains(*field) && **field != "steps";
    let missing: Vec<_> = fields.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_first_example_is_an_app() {
    let app: serde_json::Value = serde_json::from_str(&shipped("marathon-examples/testapp.json")).unwrap();
    assert_eq!(app["env"]["CALICO_IP"], "auto");
    assert_eq!(app["container"]["docker"]["image"], "busybox");
}

/// What must not be in a unit of ours: it would work in a mount or network namespace of its own, and give up
/// namespaces that nobody else can see.
const HIDES: [&str; 13] = [
    "BindPaths",
    "InaccessiblePaths",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivateTmp",
    "ProtectHome",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "RootDirectory",
];

#[test]
fn the_units_are_systemds_and_hide_nothing_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "calico-mesos-gc.service",
        "calico-mesos-gc.timer",
        "calico-mesos-proxy.service",
        "calico-mesos-proxy.socket",
        "calico-node.service",
    ];
    for name in names {
        let text = shipped(&format!("mesos/{name}"));
        let settings = text.lines().filter_map(|line| line.split_once('='));
        let names: Vec<&str> = settings.map(|(name, _)| name).collect();
        assert!(!names.iter().any(|name| HIDES.contains(name)), "{names:?}");
        // Where they are installed on a host; here any program does.
        let text = text
            .replace("/usr/bin/calico-mesos", "/bin/true")
            .replace("/usr/lib/calico-mesos/calico-node", "/bin/true");
        fs::write(folder.path().join(name), text).unwrap();
    }
    // calico/node's needs one.
    fs::write(folder.path().join("docker.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let service = shipped("mesos/calico-mesos-gc.service");
    assert!(service.contains("\nExecStart=/usr/bin/calico-mesos gc --quiet\n"), "{service}");
    let timer = shipped("mesos/calico-mesos-gc.timer");
    assert!(timer.contains("\nOnUnitInactiveSec=30s\n"), "{timer}");
    let proxy = shipped("mesos/calico-mesos-proxy.service");
    assert!(proxy.contains("\nExecStart=/usr/bin/calico-mesos proxy\n"), "{proxy}");
    // Docker waits for the proxy when the host starts.
    assert!(
        !proxy.lines().any(|line| line.starts_with("After=") || line.starts_with("Requires=")),
        "{proxy}"
    );
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .args(names.map(|name| folder.path().join(name)))
        .output();
    match verify {
        Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{output:?}"),
        Err(error) => eprintln!("not verified by systemd-analyze: {error}"),
    }
}

/// As `systemd-analyze security` counts, from 0 (safe) to 10. Without namespaces of their own the cleaner and the proxy
/// come no lower, see [`HIDES`].
#[test]
fn the_units_are_no_more_exposed_than_their_work_needs() {
    for (name, most) in
        [("calico-mesos-gc.service", 5.5), ("calico-mesos-proxy.service", 5.6), ("calico-node.service", 4.0)]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesos").join(name);
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(path)
            .output();
        let Ok(output) = output else {
            eprintln!("not looked at by systemd-analyze: there is none");
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let exposure =
            text.lines().last().and_then(|line| line.split_whitespace().nth(6)).unwrap_or_default();
        assert!(exposure.parse::<f64>().is_ok_and(|exposure| exposure <= most), "{name}: {exposure}\n{text}");
    }
}
