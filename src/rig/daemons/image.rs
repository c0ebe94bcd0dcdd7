//! The busybox image without a registry: Debian's static busybox with a link for each applet.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::process::{cache, find_program};
use super::{http, DevError, Dockerd};

/// What `docker import` gets besides the files, as the published image has it.
const CHANGES: &str = "changes=CMD%20%5B%22sh%22%5D";

/// Makes `busybox:latest` known to this dockerd, unless it has an image of that name.
pub async fn import_busybox(docker: &Dockerd) -> Result<(), DevError> {
    if docker.request("GET", "/images/busybox:latest/json", &[]).await?.0 == 200 {
        return Ok(());
    }
    let busybox = static_busybox()
        .ok_or(DevError::Missing { program: "a static busybox", hint: "run scripts/setup.sh" })?;
    let scratch = tempfile::tempdir().map_err(DevError::io("make a temporary folder"))?;
    let root = scratch.path().join("root");
    let archive = scratch.path().join("root.tar");
    fill(&root, &busybox).map_err(DevError::io("lay out the busybox image"))?;
    link_applets(&root, &busybox).await?;
    pack(&root, &archive).await?;
    let archive = fs::read(&archive).map_err(DevError::io("read the packed busybox image"))?;
    let path = format!("/images/create?fromSrc=-&repo=busybox&tag=latest&{CHANGES}");
    let reply = http::over_unix(&docker.socket, "POST", &path, &archive, Duration::from_secs(60))
        .await
        .map_err(DevError::io("import the busybox image"))?;
    match reply.status {
        // A failure behind a good status is the last line of the progress report.
        200 if !reply.body.contains("\"error\"") => Ok(()),
        status => Err(DevError::Refused { what: "importing busybox".into(), status, body: reply.body }),
    }
}

/// The system's, unless that needs libraries, which the image has not; else what the set-up put aside.
fn static_busybox() -> Option<PathBuf> {
    [find_program("busybox"), cache().map(|cache| cache.join("busybox"))]
        .into_iter()
        .flatten()
        .find(|path| is_static(path))
}

/// A program that no dynamic loader is asked for.
pub fn is_static(program: &Path) -> bool {
    // The loader's path stands right behind the headers: /lib64/ld-linux…, /lib/ld-musl….
    let names_a_loader = |window: &[u8]| matches!(window, b"/ld-linux" | b"/ld-musl-");
    fs::read(program).is_ok_and(|text| !text[..text.len().min(4096)].windows(9).any(names_a_loader))
}

fn fill(root: &Path, busybox: &Path) -> std::io::Result<()> {
    let program = fs::read(busybox)?;
    for folder in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "usr/sbin", "var"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("bin/busybox"), program)?;
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755))?;
    let users =
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\ndaemon:x:1:1:daemon:/:/bin/false\n";
    fs::write(root.join("etc/passwd"), users)?;
    fs::write(root.join("etc/group"), "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")?;
    // Some scripts call it by this path.
    symlink("/bin/busybox", root.join("usr/bin/env"))
}

async fn link_applets(root: &Path, busybox: &Path) -> Result<(), DevError> {
    let list = tokio::process::Command::new(busybox)
        .arg("--list")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(DevError::io("list the applets of busybox"))?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).map_err(DevError::io(format!("link {applet}")))?;
    }
    Ok(())
}

async fn pack(root: &Path, archive: &Path) -> Result<(), DevError> {
    let status = tokio::process::Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(root)
        .arg("-cf")
        .arg(archive)
        .arg(".")
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(DevError::io("run tar"))?;
    if status.success() {
        return Ok(());
    }
    Err(DevError::Unusable(format!("tar could not pack the busybox image ({status})")))
}
