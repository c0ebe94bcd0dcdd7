//! `calico-mesos diags`: everything that explains a host, and no secret of any of its sources.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use calico_mesos::host::processes::Stat;
use flate2::read::GzDecoder;
use serde_json::{json, Value};

use crate::desk::{Desk, Said, PROGRAM};

/// In every secret of this file, whatever stands around it.
const PLANTED: &str = "planted";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A program of another name that waits until its input ends.
struct Running(Child);

impl Running {
    fn named(dir: &Path, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let program = dir.join("programs").join(name);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::copy("/bin/sh", &program).unwrap();
        let mut command = Command::new(&program);
        command
            .args(["-c", "echo; read line", name])
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A daemon with one container, whose every text holds a secret.
fn docker(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let body = answer(line.split(' ').nth(1).unwrap_or_default()).to_string();
            let head = "HTTP/1.1 200 OK\r\nServer: Docker/28.0\r\nApi-Version: 1.48\r\nConnection: close\r\n";
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
}

fn answer(path: &str) -> Value {
    let kind = path.split('?').next().unwrap().rsplit('/').next().unwrap();
    match kind {
        "info" => json!({"Name": "h", "HttpProxy": "http://u:planted-proxy@p", "Labels": ["a=planted-label"],
            "Runtimes": {"calico": {"path": "/usr/bin/calico-runc", "runtimeArgs": ["planted-argument"]}}}),
        "networks" => {
            json!([{"Name": "n", "Options": {"key": "planted-option"}, "Labels": {"l": "planted-label"}}])
        }
        "json" if path.contains("all=1") => json!([{"Id": "abc1", "Names": ["/web"], "Image": "web:1",
            "Command": "sh -c planted-command", "Labels": {"traefik": "planted-label"},
            "HostConfig": {"NetworkMode": "none"}}]),
        "json" => json!({"Id": "abc1", "Path": "sh", "Args": ["planted-argument"], "Config": {
            "Env": ["DB_PASSWORD=planted-database", "OTHER=planted-other"], "Cmd": ["planted-command"],
            "Labels": {"traefik": "planted-label"}}, "HostConfig": {"Runtime": "calico",
            "LogConfig": {"Type": "splunk", "Config": {"splunk-token": "planted-splunk"}}}}),
        _ => json!({"Version": "28.0"}),
    }
}

/// Programs of the host that print what they find.
fn programs(dir: &Path, scripts: &[(&str, &str)]) -> String {
    let folder = dir.join("bin");
    for (name, script) in scripts {
        write(&folder.join(name), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// Files by their names below the archive's folder; all other bytes of it besides, headers among them.
fn unpacked(path: &Path) -> (BTreeMap<String, String>, Vec<u8>) {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let name = entry.path().unwrap().into_owned();
        let name = name.iter().skip(1).collect::<std::path::PathBuf>().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name, text);
    }
    (files, bytes)
}

/// Files with secrets, and what else of the configuration names them.
fn plant_files(desk: &Desk) {
    let dir = desk.dir();
    let secret = |name: &str, text: &str| {
        write(&dir.join(name), text);
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    secret("token", "0b9c-planted-consul\n");
    secret("key.pem", "-----BEGIN PRIVATE KEY-----\nMIIEplantedplantedplanted\n-----END PRIVATE KEY-----\n");
    secret("credential", "principal planted-agent\n");
    secret("registries", "{\"auths\":{\"r\":{\"auth\":\"planted-auth\"}}}");
    let text = fs::read_to_string(desk.config()).unwrap();
    let more = format!(
        "token_file = \"{0}/token\"\n[docker]\nconfig_file = \"{0}/registries\"\n[paths]\n",
        dir.display()
    );
    fs::write(desk.config(), text.replace("[paths]\n", &more)).unwrap();
    let noise = "a planted-agent, 0b9c-planted-consul, planted-database, planted-task and MIIEplantedplantedplanted\n\
                 password=planted-log token: planted-log2 http://root:planted-url@10.0.0.1/ Bearer planted-bearer\n\
                 {\"msg\":\"x\",\"etcd_password\":\"planted-json\",\"env\":{\"A\":\"planted-env\"}}\n\
                 -----BEGIN EC PRIVATE KEY-----\nplanted\nplanted==\n-----END EC PRIVATE KEY-----\nstays\n";
    for name in [
        "log/runtime/current",
        "log/gc/current",
        "log/proxy/current",
        "log/felix/current",
        "log/bird/current",
        "log/audit/current",
        "log/audit/tasks/current",
        "log/audit/changes/current",
        "state/tasks/one.json",
        "state/tasks/0b9c-planted-consul.json",
        "state/bindings/two.json",
        "status/three",
        "mtu",
        "nodename",
    ] {
        write(&dir.join(name), noise);
    }
    let settings = format!(
        "CALICO_IP=10.0.0.1\nETCD_PASSWORD=planted-settings with blanks planted\nETCD_KEY_FILE={}/key.pem\n\
         FELIX_LOGSEVERITYSCREEN=info\n",
        dir.display()
    );
    write(&dir.join("calico.env"), &settings);
}

#[tokio::test]
async fn no_secret_of_any_source_is_in_the_archive() {
    let desk = Desk::new(&["agent-1"], &[]).await;
    let dir = desk.dir();
    plant_files(&desk);
    docker(&dir.join("docker.sock"));
    let credential = format!("--credential={}/credential", dir.display());
    let _agent = Running::named(
        dir,
        "mesos-agent",
        &[
            &credential,
            "--launcher_dir=/x",
            "--secret",
            "planted-flag",
            "--zk_password=planted-zk",
            "--executor_environment_variables={\"A\":\"planted-variable\"}",
            "--master=zk://u:planted-master@z/m",
        ],
        &[("MESOS_SECRET_X", "planted-mesos"), ("MESOS_WORK_DIR", "/w"), ("PLAIN", "planted-plain")],
    );
    let _executor = Running::named(dir, "calico-executor", &[], &[("APP_PASSWORD", "planted-task")]);
    let path = programs(
        dir,
        &[
            ("nft", "echo 'table x # password: planted-nft, 0b9c-planted-consul'"),
            ("ipset", "echo kept; echo 'token=planted-ipset' >&2; exit 3"),
            ("lsmod", "env"),
            (
                "iptables-save",
                "echo '-A cali -m comment --comment \"cali:abc secret=planted-rule\" -j ACCEPT'",
            ),
        ],
    );
    let file = dir.join("out.tar.gz");
    let run = || {
        let mut command = desk.command(PROGRAM);
        command.env("PATH", &path).env("ETCD_PASSWORD", "planted-shell").args(["diags", "--env-file"]);
        command.env("DOCKER_HOST", format!("unix://{}", dir.join("docker.sock").display()));
        Said::of(command.arg(dir.join("calico.env")).arg(&file).output().unwrap())
    };
    let said = run();
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert!(said.stdout.contains("could not be read: see errors.txt in it"), "{said:?}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);

    let (files, bytes) = unpacked(&file);
    for (name, text) in &files {
        let lines: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains(PLANTED)).collect();
        assert!(lines.is_empty() && !name.contains(PLANTED), "{name}: {lines:#?}");
    }
    assert!(!String::from_utf8_lossy(&bytes).contains(PLANTED));

    complete(&files);
    // What is there is not replaced.
    let said = run();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("exists already") && unpacked(&file).1 == bytes, "{said:?}");
}

/// Every part is there, and readable where it holds no secret.
fn complete(files: &BTreeMap<String, String>) {
    let has = |name: &str, words: &str| {
        let text = files.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", files.keys()));
        assert!(text.contains(words), "{name} has no {words}: {text}");
    };
    has("status/status.txt", "  datastore  etcd 3.");
    has("status/status.json", "\"schema\": 1");
    has("config/shown.txt", "consul.token_file");
    has("config/shown.json", "/token\"");
    has("config/shown.json", "\"key\": \"etcd.key_file\"");
    has("config/check.txt", "no mistakes");
    for name in [
        "logs/runtime.log",
        "logs/gc.log",
        "logs/proxy.log",
        "logs/felix.log",
        "logs/bird.log",
        "audit/addresses.log",
        "audit/tasks.log",
        "audit/changes.log",
        "state/tasks/one.json",
        "state/bindings/two.json",
        "felix/endpoint-status/three",
    ] {
        has(name, "stays\n");
    }
    has("felix/settings.txt", "CALICO_IP=10.0.0.1\nETCD_PASSWORD=[masked]\nETCD_KEY_FILE=/");
    has("network/links.txt", "lo");
    has("network/routes-v4.txt", "# ip -4 route show table all");
    has("kernel/sysctls.txt", "net.ipv4.ip_forward = ");
    has("firewall/nft.txt", "table x # password: [masked]");
    has("firewall/iptables.txt", "-A cali -m comment");
    has("firewall/ipset.txt", "kept");
    has("errors.txt", "firewall/ipset.txt: 'ipset list' failed: token=[masked]");
    has("docker/containers.json", "DB_PASSWORD");
    has("docker/containers.json", "\"Runtime\": \"calico\"");
    has("docker/info.json", "/usr/bin/calico-runc");
    // The machine may have agents of others as well.
    let is_planted = |(name, text): &(&String, &String)| {
        name.starts_with("processes/mesos-agent-") && text.contains("--launcher_dir=/x")
    };
    let agent = files.iter().find(is_planted).unwrap().1;
    for words in ["--credential=/", "--launcher_dir=/x", "--secret [masked]", "MESOS_WORK_DIR=/w"] {
        assert!(agent.contains(words), "{words}: {agent}");
    }
    assert!(!agent.contains("PLAIN"), "{agent}");
    // No program gets the environment of the shell.
    assert!(!files["kernel/modules.txt"].contains("ETCD"), "{}", files["kernel/modules.txt"]);
    let manifest = &files["manifest.txt"];
    for name in files.keys().filter(|name| *name != "manifest.txt") {
        assert!(manifest.contains(&format!("  {name}\n")), "{name}: {manifest}");
    }
    assert!(manifest.contains("not on this host:\n"), "{manifest}");
}

#[tokio::test]
async fn what_fails_or_hangs_does_not_stop_the_rest() {
    let desk = Desk::new(&[], &[]).await;
    let dir = desk.dir();
    let text = fs::read_to_string(desk.config()).unwrap();
    fs::write(desk.config(), format!("{text}[nonsense]\npassword = \"planted-mistake\"\n")).unwrap();
    write(&dir.join("log/gc/current"), "it has planted-mistake\n");
    fs::create_dir_all(dir.join("out")).unwrap();
    let pid = dir.join("pid");
    let hangs = format!("echo begun; echo $$ > {}; exec sleep 1000", pid.display());
    let path = programs(dir, &[("ipset", &hangs)]);
    let mut command = desk.command(PROGRAM);
    command.env("PATH", path).arg("diags").current_dir(dir.join("out"));
    let said = Said::of(command.output().unwrap());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    let name = said.stdout.split(": ").next().unwrap();
    assert!(name.starts_with("calico-mesos-diags-") && name.ends_with("Z.tar.gz"), "{said:?}");
    let (files, bytes) = unpacked(&dir.join("out").join(name));
    let errors = &files["errors.txt"];
    assert!(errors.contains("firewall/ipset.txt: given up after 15 s"), "{errors}");
    assert!(errors.contains("config: ") && errors.contains("nonsense"), "{errors}");
    assert!(errors.contains("docker: "), "{errors}");
    assert!(files["config/check.txt"].contains("nonsense"), "{files:#?}");
    assert_eq!(files["logs/gc.log"], "it has [masked]\n");
    assert!(files.contains_key("network/links.txt") && !String::from_utf8_lossy(&bytes).contains(PLANTED));
    let pid = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    // Killed; what adopts it may be slow to take note.
    let ended = Stat::of(pid).is_none_or(|stat| stat.is_dead());
    assert!(ended, "the program that hung is still there");
}
