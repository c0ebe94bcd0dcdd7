//! The files that a task wants in its sandbox: what a real agent's fetcher does, with the programs of the machine.
//!
//! | URI | fetched by |
//! | --- | --- |
//! | `/path`, `file:///path` | a copy |
//! | `http`, `https`, `ftp`, `ftps` | `curl`, which follows redirects and gives up after a minute without a byte, or after [`FETCH`] in all |
//! | anything else (`hdfs`, `s3`, …), a relative path | nothing: [`obstacle`] names the reason |
//!
//! The file gets the last part of the URI as its name, or `output_file`. An executable file is made executable; of the
//! others those that are archives by their name are unpacked beside themselves, if the URI asks for it.
//!
//! A URI may hold a user and a password. `curl` reads it from its standard input: every user of a machine can read the
//! command lines of all processes.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::redacted;
use crate::limits::FETCH;
use crate::mesos::messages::command_info::Uri;
use crate::mesos::messages::TaskInfo;

const REMOTE: [&str; 4] = ["http", "https", "ftp", "ftps"];
const TAR: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"];

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot {what} {path}")]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {program}")]
    Program {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed ({status}): {words}")]
    Failed { program: &'static str, status: std::process::ExitStatus, words: String },
    #[error("{program} does not end within {} s", limit.as_secs_f32())]
    Slow { program: &'static str, limit: Duration },
    #[error("{0}")]
    Unusable(String),
}

/// Where a URI's file comes from.
enum Source<'a> {
    Local(&'a str),
    Remote(&'a str),
}

fn source(uri: &str) -> Result<Source<'_>, String> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return match uri.starts_with('/') {
            true => Ok(Source::Local(uri)),
            false => Err("a relative path, which an agent looks for below its --frameworks_home".to_owned()),
        };
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme == "file" {
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        return match path.starts_with('/') {
            true => Ok(Source::Local(path)),
            false => Err("a file of another machine".to_owned()),
        };
    }
    match REMOTE.contains(&scheme.as_str()) {
        true => Ok(Source::Remote(uri)),
        false => Err(format!("only local files and {} are fetched", REMOTE.join(", "))),
    }
}

/// Why this URI is not fetched on this machine; `None` if it is tried.
pub fn obstacle(uri: &Uri) -> Option<String> {
    let source = match source(&uri.value) {
        Ok(source) => source,
        Err(why) => return Some(why),
    };
    match source {
        Source::Local(path) => match fs::metadata(path) {
            Ok(meta) if meta.is_file() => None,
            Ok(_) => Some("not a file on this machine".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("no such file on this machine".to_owned())
            }
            Err(error) => Some(error.to_string()),
        },
        Source::Remote(_) if !has("curl") => Some("curl is not installed here".to_owned()),
        Source::Remote(_) => None,
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The URIs of the task and of the executor that it brings.
pub fn uris(task: &TaskInfo) -> impl Iterator<Item = &Uri> {
    let executor = task.executor.iter().flat_map(|executor| &executor.command);
    task.command.iter().chain(executor).flat_map(|command| &command.uris)
}

/// Puts the URI's file into the folder, and unpacks it there if the URI wants that.
pub(super) async fn fetch(uri: &Uri, folder: &Path) -> Result<(), FetchError> {
    fetch_within(FETCH, uri, folder).await
}

/// `limit` is that of each program.
async fn fetch_within(limit: Duration, uri: &Uri, folder: &Path) -> Result<(), FetchError> {
    let file = folder.join(name(uri)?);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(failed("make the folder", parent))?;
    }
    match source(&uri.value).map_err(FetchError::Unusable)? {
        Source::Local(path) => drop(tokio::fs::copy(path, &file).await.map_err(failed("copy", path))?),
        Source::Remote(address) => {
            let target = file.as_os_str();
            let patience = ["--connect-timeout", "30", "--speed-limit", "1", "--speed-time", "60"];
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--location", "--fail", "--globoff"]).args(patience);
            curl.arg("--output").arg(target).args(["--config", "-"]);
            run("curl", curl, &format!("url = {}\n", quoted(address)), limit).await?;
        }
    }
    if uri.executable() {
        return fs::set_permissions(&file, Permissions::from_mode(0o777))
            .map_err(failed("make executable", &file));
    }
    match uri.extract() {
        true => unpack(&file, limit).await,
        false => Ok(()),
    }
}

/// A value in a configuration of curl's.
fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in value.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

/// The path of the file in the sandbox.
fn name(uri: &Uri) -> Result<PathBuf, FetchError> {
    let wrong = |problem: &str| Err(FetchError::Unusable(problem.to_owned()));
    if let Some(wanted) = uri.output_file.as_deref().filter(|wanted| !wanted.is_empty()) {
        let path = Path::new(wanted);
        return match path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            true => Ok(path.to_owned()),
            false => wrong("destPath leads out of the sandbox: give a relative path without '..'"),
        };
    }
    let (_, path) = uri.value.split_once("://").unwrap_or(("", &uri.value));
    match path.rsplit_once('/').map(|(_, name)| name) {
        Some(name) if !matches!(name, "" | "." | "..") => Ok(name.into()),
        _ => wrong("the URI ends without a file name: destPath gives it one"),
    }
}

/// By the name of the file, as Mesos does; a file of another kind stays as it is.
async fn unpack(file: &Path, limit: Duration) -> Result<(), FetchError> {
    let (Some(folder), Some(name)) = (file.parent(), file.to_str()) else { return Ok(()) };
    if TAR.iter().any(|end| name.ends_with(end)) {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder).arg("-xf").arg(file);
        return run("tar", tar, "", limit).await;
    }
    if let Some(plain) = name.strip_suffix(".gz") {
        let output = fs::File::create(plain).map_err(failed("make the file", plain))?;
        let mut gzip = Command::new("gzip");
        gzip.arg("-dc").arg(file).stdout(output);
        return run("gzip", gzip, "", limit).await;
    }
    if name.ends_with(".zip") {
        let mut unzip = Command::new("unzip");
        unzip.args(["-o", "-q", "-d"]).arg(folder).arg(file);
        return run("unzip", unzip, "", limit).await;
    }
    Ok(())
}

/// To its end, with this as its standard input; a future that is dropped takes the program with it.
async fn run(
    program: &'static str,
    mut command: Command,
    input: &str,
    limit: Duration,
) -> Result<(), FetchError> {
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().map_err(|source| FetchError::Program { program, source })?;
    let output = timeout(limit, feed(child, input)).await.map_err(|_| FetchError::Slow { program, limit })?;
    let output = output.map_err(|source| FetchError::Program { program, source })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Err(FetchError::Failed { program, status: output.status, words })
        }
    }
}

async fn feed(mut child: Child, input: &str) -> io::Result<std::process::Output> {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read is judged by its exit status.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await
}

fn failed(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.into();
    move |source| FetchError::File { what, path, source }
}

/// Moves what was fetched into the sandbox, which is on the same file system.
pub(super) fn deliver(fetched: &Path, sandbox: &Path) -> io::Result<()> {
    for entry in fs::read_dir(fetched)? {
        let entry = entry?;
        fs::rename(entry.path(), sandbox.join(entry.file_name()))?;
    }
    Ok(())
}

/// The URI for people: without a password.
pub fn shown(uri: &Uri) -> String {
    redacted(&uri.value)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn uri(value: &str) -> Uri {
        Uri { value: value.to_owned(), extract: Some(true), ..Uri::default() }
    }

    fn sh(folder: &Path, script: &str) {
        let status = std::process::Command::new("sh").args(["-ec", script]).current_dir(folder).status();
        assert!(status.unwrap().success(), "{script}");
    }

    #[tokio::test]
    async fn local_archives_are_unpacked_by_their_names() {
        let from = tempfile::tempdir().unwrap();
        sh(
            from.path(),
            "mkdir d; echo inside >d/f; for z in cf:tar czf:tar.gz czf:tgz cjf:tar.bz2 cJf:txz; do \
             tar -${z%:*} a.${z#*:} d; done; gzip -c d/f >f.txt.gz; echo text >plain",
        );
        for archive in ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.txz"] {
            let to = tempfile::tempdir().unwrap();
            fetch(&uri(&format!("file://{}/{archive}", from.path().display())), to.path()).await.unwrap();
            assert_eq!(fs::read_to_string(to.path().join("d/f")).unwrap(), "inside\n", "{archive}");
            assert!(to.path().join(archive).is_file(), "the archive stays");
        }
        let to = tempfile::tempdir().unwrap();
        let local = |name: &str| uri(&from.path().join(name).display().to_string());
        fetch(&local("f.txt.gz"), to.path()).await.unwrap();
        assert_eq!(fs::read_to_string(to.path().join("f.txt")).unwrap(), "inside\n");
        // Not asked for, and an executable is none.
        for kept in [
            Uri { extract: Some(false), ..local("a.tgz") },
            Uri { executable: Some(true), output_file: Some("bin/x.tgz".into()), ..local("a.tgz") },
        ] {
            fetch(&kept, to.path()).await.unwrap();
        }
        assert!(!to.path().join("d").exists());
        let mode = |name: &str| fs::metadata(to.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("bin/x.tgz"), mode("a.tgz") & 0o111), (0o777, 0));
        fetch(&local("plain"), to.path()).await.unwrap();
        assert_eq!(fs::read_to_string(to.path().join("plain")).unwrap(), "text\n");
    }

    #[tokio::test]
    async fn a_zip_archive_is_unpacked() {
        let from = tempfile::tempdir().unwrap();
        sh(from.path(), "echo inside >f; python3 -m zipfile -c a.zip f");
        let to = tempfile::tempdir().unwrap();
        fetch(&uri(&format!("{}/a.zip", from.path().display())), to.path()).await.unwrap();
        assert_eq!(fs::read_to_string(to.path().join("f")).unwrap(), "inside\n");
    }

    #[tokio::test]
    async fn nothing_is_written_outside_of_the_sandbox() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sh(from.path(), "echo x >f");
        for outside in ["../f", "/tmp/f", "a/../../f"] {
            let bad =
                Uri { output_file: Some(outside.into()), ..uri(&format!("{}/f", from.path().display())) };
            let error = fetch(&bad, to.path()).await.unwrap_err();
            assert!(error.to_string().contains("leads out of the sandbox"), "{error}");
        }
        assert!(fetch(&uri("http://127.0.0.1/"), to.path()).await.is_err(), "no name");
    }

    /// The command lines of this process's children that mention the folder.
    fn command_lines(folder: &Path) -> Vec<String> {
        let own = std::process::id().to_string();
        let parent = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1).map(str::to_owned))
        };
        let children = crate::host::processes::pids().filter(|pid| parent(*pid).as_ref() == Some(&own));
        let lines = children.filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
    }

    /// The head of a request.
    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn a_uri_password_reaches_the_server_and_no_command_line() {
        let to = tempfile::tempdir().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let folder = to.path().to_owned();
        let served = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let (asked, lines) = (head(&mut stream).await, command_lines(&folder));
            // The base64 of `user:se"cr\et`.
            let known = asked.contains("Authorization: Basic dXNlcjpzZSJjclxldA==");
            let status = if known { "200 OK" } else { "401 Unauthorized" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfile");
            stream.write_all(answer.as_bytes()).await.unwrap();
            (asked, lines)
        });
        let value = format!("http://user:se%22cr%5Cet@{address}/a/file.txt?key=x\"y\\z");
        let uri = Uri { output_file: Some("file.txt".into()), ..uri(&value) };
        let fetched = fetch(&uri, to.path()).await;
        let (asked, lines) = served.await.unwrap();
        fetched.unwrap_or_else(|error| panic!("{error}: {asked}"));
        assert!(asked.starts_with("GET /a/file.txt?key=x\"y\\z HTTP/1.1\r\n"), "{asked}");
        assert_eq!(fs::read_to_string(to.path().join("file.txt")).unwrap(), "file");
        assert!(lines.len() == 1 && lines[0].contains("curl"), "{lines:?}");
        assert!(!lines[0].contains("user:") && !lines[0].contains("key="), "{lines:?}");
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_given_up() {
        let to = tempfile::tempdir().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.unwrap();
            // Faster than what curl takes for a stalled transfer, until the connection breaks.
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let limit = Duration::from_millis(500);
        let error =
            fetch_within(limit, &uri(&format!("http://{address}/endless")), to.path()).await.unwrap_err();
        assert_eq!(error.to_string(), "curl does not end within 0.5 s");
        served.await.unwrap();
    }

    #[test]
    fn what_is_not_fetched_is_known_beforehand() {
        for (value, words) in [
            ("hdfs://h/x", "only local files and http"),
            ("x.tgz", "--frameworks_home"),
            ("file://h/x", "another machine"),
            ("/no/such/file", "no such file"),
            ("file:///tmp", "not a file"),
        ] {
            let why = obstacle(&uri(value)).unwrap();
            assert!(why.contains(words), "{value}: {why}");
        }
        let own = std::env::current_exe().unwrap();
        assert_eq!(obstacle(&uri(&format!("file://localhost{}", own.display()))), None);
        assert_eq!(obstacle(&uri("http://h/x")).is_none(), has("curl"));
    }
}
