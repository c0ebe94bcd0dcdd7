//! The front end `calicoctl`: its link, what it leaves to Calico's own calicoctl, and its help.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use crate::desk::{Desk, Said, PROGRAM};

/// In place of Calico's own calicoctl: prints what it was called with.
fn stand_in(folder: &Path) -> std::path::PathBuf {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("calicoctl");
    fs::write(
        &path,
        "#!/bin/sh\necho \"called with: $*\"\nenv | grep -E '^(CALICO_)?(ETCD|DATASTORE)' | sort\nexit 7\n",
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn verbs_of_calicos_own_calicoctl_are_left_to_it() {
    let desk = Desk::new(&[], &[]).await;
    let link = desk.dir().join("bin/calicoctl");
    fs::create_dir(desk.dir().join("bin")).unwrap();
    symlink(PROGRAM, &link).unwrap();
    stand_in(&desk.dir().join("real"));
    let path = format!("{0}/bin:{0}/real:{1}", desk.dir().display(), std::env::var("PATH").unwrap());
    let delegated = |program: &Path, line: &str, set: &[(&str, &str)]| {
        let mut command = desk.command(program);
        let words = line.split_whitespace();
        let said = Said::of(command.args(words).env("PATH", &path).envs(set.to_vec()).output().unwrap());
        // The exit code is the other program's.
        assert_eq!((said.code, said.stderr.as_str()), (7, ""), "{said:?}");
        said.stdout
    };
    let endpoint = format!("ETCD_ENDPOINTS={}", desk.world.etcd.endpoint);
    for program in [link.as_path(), Path::new(PROGRAM)] {
        for line in ["get nodes -o wide --config=/x", "ipam configure --strictaffinity=true", "node status"] {
            let said = delegated(program, line, &[]);
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines, [&format!("called with: {line}"), "DATASTORE_TYPE=etcdv3", &endpoint]);
        }
    }
    assert!(delegated(&link, "diags", &[]).starts_with("called with: node diags\n"));
    let own = delegated(&link, "get wep", &[("ETCD_ENDPOINTS", "http://other:1")]);
    assert!(own.contains("ETCD_ENDPOINTS=http://other:1"), "{own}");
}

/// Calico's own calicoctl ignores the environment where its file exists.
#[tokio::test]
async fn calicoctl_cfg_does_not_lead_it_to_another_datastore() {
    let desk = Desk::new(&[], &[]).await;
    let etc = desk.dir().join("etc/calico");
    fs::create_dir_all(&etc).unwrap();
    let cfg = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec:\n  datastoreType: etcdv3\n  \
               etcdEndpoints: http://other:1\n";
    fs::write(etc.join("calicoctl.cfg"), cfg).unwrap();
    let real = desk.dir().join("real/calicoctl");
    fs::create_dir(desk.dir().join("real")).unwrap();
    // In place of the real one: reads the file that is named, else its own.
    let script = "#!/bin/sh\nfile=/etc/calico/calicoctl.cfg\nfor word; do case $word in --config=*) file=${word#*=};; esac; \
                  done\nread_once=$(cat $file)\ncat $file\n";
    fs::write(&real, script).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |line: &str, config: &Path| {
        // /etc of its own, so that nothing of this machine is touched.
        let mount = format!("mount --bind {}/etc /etc && exec \"$0\" \"$@\"", desk.dir().display());
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", &mount, PROGRAM, "--config"]).arg(config);
        command
            .env_clear()
            .env("PATH", format!("{}/real:{}", desk.dir().display(), std::env::var("PATH").unwrap()));
        let said = Said::of(command.args(line.split_whitespace()).output().unwrap());
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{line}: {said:?}");
        said.stdout
    };
    let said = run("get nodes", &desk.config());
    let document: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let spec = serde_json::json!({"datastoreType": "etcdv3", "etcdEndpoints": desk.world.etcd.endpoint});
    assert_eq!((&document["kind"], &document["spec"]), (&"CalicoAPIConfig".into(), &spec), "{said}");
    // Where that file decides for our own verbs as well, it is left to be read.
    let bare = desk.dir().join("bare.toml");
    fs::write(&bare, "").unwrap();
    assert_eq!(run("get nodes", &bare), cfg);
    assert_eq!(run("convert -f x", &desk.config()), cfg);
    let own = format!("get nodes --config={}/calicoctl.cfg", etc.display());
    assert_eq!(run(&own, &desk.config()), cfg);
}

#[tokio::test]
async fn without_calicos_own_calicoctl_one_sentence_and_exit_code_69() {
    let desk = Desk::new(&[], &[]).await;
    let link = desk.dir().join("calicoctl");
    symlink(PROGRAM, &link).unwrap();
    let run =
        |words: &[&str]| Said::of(desk.command(&link).args(words).env("PATH", desk.dir()).output().unwrap());
    let said = run(&["get", "nodes"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.lines().count()), (69, "", 1), "{said:?}");
    assert!(said.stderr.starts_with("calicoctl: `calicoctl get` needs Calico's own calicoctl"), "{said:?}");
    assert!(said.stderr.contains("[calicoctl] path"), "{said:?}");

    // A copy of ours is another file, and goes no further.
    let copy = desk.dir().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(PROGRAM, copy.join("calicoctl")).unwrap();
    let text = fs::read_to_string(desk.config()).unwrap();
    fs::write(desk.config(), format!("{text}[calicoctl]\npath = \"{}/calicoctl\"\n", copy.display()))
        .unwrap();
    let said = Said::of(
        std::process::Command::new(&link)
            .args(["--config".as_ref(), desk.config().as_os_str(), "get".as_ref(), "nodes".as_ref()])
            .env("PATH", desk.dir())
            .output()
            .unwrap(),
    );
    assert_eq!(said.code, 69, "{said:?}");
    assert!(said.stderr.contains("is a copy of calico-mesos"), "{said:?}");
}

#[tokio::test]
async fn the_configured_calicoctl_is_called() {
    let desk = Desk::new(&[], &[]).await;
    let real = stand_in(&desk.dir().join("opt"));
    let text = fs::read_to_string(desk.config()).unwrap();
    fs::write(desk.config(), format!("{text}[calicoctl]\npath = \"{}\"\n", real.display())).unwrap();
    let said = desk.run("version");
    assert!(said.code == 7 && said.stdout.starts_with("called with: version\n"), "{said:?}");
}

#[tokio::test]
async fn the_link_is_made_on_request_and_never_over_another_program() {
    let desk = Desk::new(&[], &[]).await;
    let dir = desk.dir().join("local");
    fs::create_dir(&dir).unwrap();
    let install = format!("calicoctl install --dir {}", dir.display());
    assert_eq!(desk.run(&format!("{install} --dry-run")).code, 3);
    assert!(!dir.join("calicoctl").exists());
    assert!(desk.run(&install).stdout.contains("is made"));
    assert_eq!(fs::canonicalize(dir.join("calicoctl")).unwrap(), fs::canonicalize(PROGRAM).unwrap());
    assert!(desk.run(&install).stdout.contains("is there already"));
    let help = Said::of(std::process::Command::new(dir.join("calicoctl")).arg("help").output().unwrap());
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for verb in ["  status ", "  profile show [--detailed]", "  endpoint show [--detailed]", "  pool show "] {
        assert!(help.stdout.contains(verb), "{help:?}");
    }
    let uninstall = format!("calicoctl uninstall --dir {}", dir.display());
    assert!(desk.run(&uninstall).stdout.contains("is removed"));
    stand_in(&dir);
    for line in [&install, &uninstall] {
        assert!(desk.refused(line).contains("is another program"), "{line}");
    }
}

#[tokio::test]
async fn a_retired_command_names_its_successor() {
    let desk = Desk::new(&[], &[]).await;
    for (line, successor) in [
        ("container add web 192.168.0.1", "CALICO_IP"),
        ("diags --upload", "calicoctl node diags"),
        ("restart-docker-with-alternative-unix-socket", "calico-mesos node install"),
    ] {
        let said = desk.run(line);
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.lines().count()), (64, "", 1), "{said:?}");
        assert!(said.stderr.contains(successor), "{said:?}");
    }
}
