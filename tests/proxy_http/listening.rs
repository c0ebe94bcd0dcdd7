//! Where the proxy listens, whom it refuses there, and how it ends.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::kit::{program, Peer, Proxy};

/// Of a proxy that ends at once.
fn refused(folder: &Path, section: &str) -> String {
    let output = program(folder, section).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn addresses_beyond_loopback_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "10.0.0.1:2377", "[::]:2377"] {
        let text = refused(folder.path(), &format!("listen = \"{address}\"\nsocket = \"\"\n"));
        assert!(text.contains(address) && text.contains("docker context create"), "{text}");
    }
    let text = refused(folder.path(), "listen = \"\"\nsocket = \"\"\n");
    assert!(text.contains("nowhere to listen"), "{text}");
}

#[test]
fn an_upstream_that_is_the_proxy_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let link = folder.path().join("link.sock");
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    for path in [&socket, &link] {
        let section = format!(
            "listen = \"\"\nsocket = \"{}\"\ndocker = \"unix://{}\"\n",
            socket.display(),
            path.display()
        );
        let text = refused(folder.path(), &section);
        assert!(text.contains("leads back to this proxy"), "{text}");
    }
    let section = "listen = \"127.0.0.1:23771\"\nsocket = \"\"\ndocker = \"localhost:23771\"\n";
    let text = refused(folder.path(), section);
    assert!(text.contains("leads back to this proxy"), "{text}");
}

#[tokio::test]
async fn the_socket_is_for_root_and_the_group_docker_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    drop(UnixListener::bind(&path).unwrap());
    let stale = fs::metadata(&path).unwrap().ino();
    let mut proxy = Proxy::start_in(folder).await;
    let found = fs::metadata(&path).unwrap();
    assert_ne!(found.ino(), stale);
    assert!(found.file_type().is_socket());
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o660, 0));
    let group = fs::read_to_string("/etc/group").unwrap();
    let docker = group.lines().find_map(|line| line.strip_prefix("docker:")?.split(':').nth(1)?.parse().ok());
    assert_eq!(found.gid(), docker.unwrap_or(0));

    // One that another proxy listens at is left to it.
    let other = tempfile::tempdir().unwrap();
    let text = refused(other.path(), &format!("listen = \"\"\nsocket = \"{}\"\n", path.display()));
    assert!(text.contains("another program listens there"), "{text}");
    assert!(proxy.is_running());

    proxy.signal(Signal::SIGTERM);
    assert!(proxy.ended_within(Duration::from_secs(3)).success());
    assert!(!path.exists());
}

/// An executor of the release before closes the folder at each start.
#[test]
fn the_folder_of_the_socket_that_an_executor_has_closed_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (run, log) = (folder.path().join("run"), folder.path().join("stderr"));
    let section =
        format!("listen = \"\"\nsocket = {:?}\ndocker = \"unix:///none.sock\"\n", run.join("docker.sock"));
    let mut proxy = program(folder.path(), &section).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let is_open = || fs::metadata(&run).is_ok_and(|meta| meta.mode() & 0o777 == 0o711);
    let begun = Instant::now();
    let becomes_true = |what: &str, is_true: &dyn Fn() -> bool| {
        while !is_true() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let listens = || fs::read_to_string(&log).unwrap().contains("listening at ");
    becomes_true("the proxy listens", &|| is_open() && listens());
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    becomes_true("the folder is open again", &is_open);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(proxy.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(proxy.wait().unwrap().success());
    let told = fs::read_to_string(&log).unwrap();
    assert_eq!(told.matches("is open again").count(), 1, "{told}");
}

#[tokio::test]
async fn the_end_of_the_proxy_ends_streams_within_two_seconds() {
    let mut proxy = Proxy::start().await;
    let (mut events, mut attached, mut idle) = (proxy.tcp().await, proxy.unix().await, proxy.unix().await);
    events.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut docker_events = proxy.accept().await;
    docker_events.head().await;
    attached.send("POST /containers/web/attach HTTP/1.1\r\nHost: d\r\n\r\n").await;
    let mut docker_attached = proxy.accept().await;
    docker_attached.head().await;
    docker_attached.send("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").await;
    attached.head().await;
    let begun = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.ended_within(Duration::from_secs(3)).success());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for client in [&mut attached, &mut idle] {
        assert_eq!(client.text().await, "");
    }
    assert_eq!(events.text().await, "");
    assert_eq!((docker_events.text().await, docker_attached.text().await), (String::new(), String::new()));
}

#[tokio::test]
async fn web_pages_are_refused_at_the_tcp_port() {
    let proxy = Proxy::start().await;
    for header in ["Host: evil.example:2377", "Host: localhost:2377\r\nOrigin: http://evil.example"] {
        let mut client = proxy.tcp().await;
        client
            .send(format!("POST /containers/create HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n"))
            .await;
        let answer = client.text().await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert!(answer.contains("\r\n\r\n{\"message\":\"CM-NOT-ALLOWED: the header "), "{answer}");
    }
    assert!(proxy.docker_is_quiet().await);
    // Only what can open the socket reaches it there.
    let mut client = proxy.unix().await;
    client.send("GET /_ping HTTP/1.1\r\nHost: %2Frun%2Fproxy.sock\r\nOrigin: http://x\r\n\r\n").await;
    assert!(proxy.accept().await.head().await.contains("\r\nHost: %2Frun%2Fproxy.sock\r\n"));
}

#[tokio::test]
async fn sockets_of_systemd_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("handed.sock");
    let handed = UnixListener::bind(&path).unwrap();
    let docker = tokio::net::UnixListener::bind(folder.path().join("docker.sock")).unwrap();
    let section = format!("docker = \"unix://{}/docker.sock\"\n", folder.path().display());
    let mut command = std::process::Command::new("/bin/sh");
    // systemd puts the child's own process id there.
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_calico-mesos"));
    let configured = program(folder.path(), &section);
    command.args(configured.get_args());
    let descriptor = handed.as_raw_fd();
    #[allow(unsafe_code, reason = "a descriptor is handed over by its number")]
    // SAFETY: both calls are safe between fork and exec, and 3 is no descriptor that the child uses.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // Where the descriptor is number 3 already, dup2 would leave it to be closed at exec.
            let kept = match descriptor {
                3 => nix::libc::fcntl(3, nix::libc::F_SETFD, 0),
                other => nix::libc::dup2(other, 3),
            };
            match kept {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let mut child = command.spawn().unwrap();
    let mut client = Peer::new(tokio::net::UnixStream::connect(&path).await.unwrap());
    client.send("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
    let mut docker = Peer::new(super::kit::soon(docker.accept()).await.unwrap().0);
    assert!(docker.head().await.starts_with("GET /_ping "));
    child.kill().unwrap();
    child.wait().unwrap();
    // It was not the proxy's own.
    assert!(path.exists());
}
