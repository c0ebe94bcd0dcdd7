//! Nothing that is written, sent or left behind holds a secret of the operator's.

use std::path::Path;
use std::time::{Duration, Instant};

use calico_mesos::error::Code;
use calico_mesos::mesos::messages::{Message, TaskState};
use serde_json::json;

use crate::certificates::Authority;
use crate::world::{app, calico, Task, World};

/// Part of each of them.
const MARK: &str = "hunter2";

fn secret(folder: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("\"{}\"", path.display())
}

/// Every file below a folder that holds the mark, by name or content.
fn told_in(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            told_in(&path, found);
        } else if kind.is_file() && holds(&std::fs::read(&path).unwrap_or_default()) {
            found.push(path.display().to_string());
        }
    }
}

fn holds(bytes: &[u8]) -> bool {
    // As it stands, or as base64 would write it at any of its three places.
    let marks: [&[u8]; 4] = [MARK.as_bytes(), b"aHVudGVyM", b"h1bnRlcj", b"odW50ZXIy"];
    marks.iter().any(|mark| bytes.windows(mark.len()).any(|window| window == *mark))
}

async fn nothing_told(world: &World, task: &Task<'_>) {
    let mut found = Vec::new();
    for folder in
        [task.sandbox(), &world.config.paths.run, &world.config.paths.state, &world.config.paths.log]
    {
        told_in(folder, &mut found);
    }
    assert!(found.is_empty(), "{found:?}\n{}", task.log());
    for update in world.agent.history(&task.id) {
        assert!(!holds(&update.status.encode_to_vec()), "{:?}", update.status);
    }
    for container in world.containers().await {
        let inspected =
            world.docker(&format!("/containers/{}/json", container["Id"].as_str().unwrap())).await;
        assert!(!holds(inspected.to_string().as_bytes()), "{inspected}");
    }
    let gc = world.gc();
    assert!(!holds(&gc.stdout) && !holds(&gc.stderr));
}

#[tokio::test]
async fn secrets_stay_in_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let token = secret(folder.path(), "token", MARK);
    let auths = json!({"auths": {"localhost:1": {"username": "u", "password": MARK}}}).to_string();
    let registry = secret(folder.path(), "config.json", &auths);
    let password = secret(folder.path(), "password", MARK);
    let world = World::with(
        |stack| {
            stack.consul = true;
            stack.config.insert("consul.token_file".into(), token);
            stack.config.insert("docker.config_file".into(), registry);
        },
        |_| (),
    )
    .await;
    let task = world.running(&app("/quiet", "exec sleep 1000", calico())).await;
    nothing_told(&world, &task).await;
    task.kill().await;

    let mut image = app("/pull", "exec sleep 1000", calico());
    image["container"]["docker"]["image"] = json!("localhost:1/x");
    let task = world.launch(&image).await;
    assert!(task.fails().await.contains("CM-IMAGE"));
    assert!(task.log().contains("uses the credentials for localhost:1"), "{}", task.log());
    nothing_told(&world, &task).await;

    // Mistakes, too: a user that etcd does not know, and secrets where they do not belong.
    let good = std::fs::read_to_string(&world.stack.config).unwrap();
    for (mistake, code) in [
        (format!("etcd.username = \"u\"\netcd.password_file = {password}\n"), Code::Etcd),
        (format!("etcd.password = \"{MARK}\"\n"), Code::Config),
    ] {
        std::fs::write(&world.stack.config, format!("{good}{mistake}")).unwrap();
        let task = world.launch(&app("/mistake", "exec sleep 1000", calico())).await;
        let message = task.fails().await;
        assert!(message.contains(code.name()), "{mistake}: {message}");
        nothing_told(&world, &task).await;
        task.executor_exit().await;
    }
    std::fs::write(&world.stack.config, good).unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn a_whole_life_with_a_docker_that_wants_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let (server, client) = (authority.server("server"), authority.client("client"));
    let world = World::with(
        |stack| {
            stack.docker_tcp = true;
            let tls = json!({
                "tlsverify": true, "tlscacert": authority.ca, "tlscert": server.0, "tlskey": server.1,
            });
            stack.docker_configuration = tls.as_object().unwrap().clone();
            let quoted = |path: &Path| format!("\"{}\"", path.display());
            for (name, path) in [("ca", &authority.ca), ("cert", &client.0), ("key", &client.1)] {
                stack.config.insert(format!("docker.{name}_file"), quoted(path));
            }
        },
        |_| (),
    )
    .await;
    let text = std::fs::read_to_string(&world.stack.config).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("docker.host") {
        true => format!("docker.host = \"tcp://localhost:{}\"\n", world.stack.docker.tcp.unwrap().port()),
        false => format!("{line}\n"),
    });
    std::fs::write(&world.stack.config, lines.collect::<String>()).unwrap();
    for variables in [calico(), json!({})] {
        let task = world.running(&app("/secured", "exec sleep 1000", variables)).await;
        task.kill().await;
    }
    // The cleaner, too.
    let task = world.running(&app("/orphan", "exec sleep 1000", calico())).await;
    let executor = nix::unistd::Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap());
    nix::sys::signal::kill(executor, nix::sys::signal::Signal::SIGKILL).unwrap();
    task.executor_exit().await;
    let gc = world.gc();
    assert!(gc.status.success(), "{}", String::from_utf8_lossy(&gc.stderr));
    world.nothing_left().await;
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let token = secret(folder.path(), "token", MARK);
    let path = folder.path().join("token");
    let world = World::with(
        |stack| {
            stack.consul = true;
            stack.config.insert("consul.token_file".into(), token);
        },
        |_| (),
    )
    .await;
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let app = app("/careless", "exec sleep 1000", calico());
    for (path, bits, says) in
        [(path.as_path(), 0o644, "run: chmod o= "), (&world.config.paths.state, 0o777, "run: chmod go-w ")]
    {
        std::fs::create_dir_all(&world.config.paths.state).unwrap();
        let before = std::fs::metadata(path).unwrap().permissions();
        mode(path, bits);
        let task = world.launch(&app).await;
        let message = task.fails().await;
        assert!(message.contains("CM-UNSAFE") && message.contains(says), "{message}");
        let trail = std::fs::read_to_string(world.config.paths.log.join("audit/tasks/current")).unwrap();
        let told = |line: &&str| line.contains(&task.id) && line.contains(r#""event":"launch""#);
        let told: Vec<_> = trail.lines().filter(told).collect();
        assert!(told.len() == 1 && told[0].contains("CM-UNSAFE"), "{trail}");
        task.executor_exit().await;
        std::fs::set_permissions(path, before).unwrap();
    }
    let task = world.launch(&app).await;
    task.reaches(TaskState::TaskRunning).await;
    task.kill().await;
    world.nothing_left().await;
}

/// Its login runs beside journal and `docker create`: the smallest of five figures each is what a quiet host sees.
#[tokio::test]
async fn a_password_for_etcd_is_checked_beside_the_rest_of_a_launch() {
    let world = World::new().await;
    let fastest = async |id: &str| {
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            let task = world.running(&app(id, "sleep 1000", calico())).await;
            fastest = fastest.min(begun.elapsed());
            eprintln!(
                "{}",
                task.log().lines().find(|line| line.contains("running after")).unwrap_or_default()
            );
            assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
        }
        fastest
    };
    let open = fastest("/open").await;
    let mut raw = etcd_client::Client::connect([&world.stack.etcd_endpoint], None).await.unwrap();
    raw.role_add("root").await.unwrap();
    for user in ["root", "mesos"] {
        raw.user_add(user, "se cret", None).await.unwrap();
        raw.user_grant_role(user, "root").await.unwrap();
    }
    raw.auth_enable().await.unwrap();
    let password = secret(&world.stack.dir, "password", "se cret\n");
    world.configure("etcd.username", "\"mesos\"");
    world.configure("etcd.password_file", &password);
    let guarded = fastest("/guarded").await;
    eprintln!("launch to RUNNING: {open:?} without, {guarded:?} with a password");
}
