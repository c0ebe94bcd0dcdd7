//! What is left of a place after it was closed: its folder, mounts in it, processes that name it or are in it.

use std::path::Path;

use crate::processes::{command_line, pids};

/// One entry a thing; empty when all is gone.
pub fn of(folder: &Path) -> Vec<String> {
    let name = folder.to_string_lossy();
    let mut left = Vec::new();
    if folder.symlink_metadata().is_ok() {
        left.push(format!("folder {name}"));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    left.extend(
        points.filter(|point| Path::new(point).starts_with(folder)).map(|point| format!("mount {point}")),
    );
    let own = std::process::id();
    for pid in pids().filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != own)) {
        let Some(words) = command_line(pid) else { continue };
        if words.iter().any(|word| word.contains(&*name)) || is_in(pid, folder) {
            left.push(format!("process {pid} ({})", words.join(" ").trim()));
        }
    }
    left
}

/// Executors and commands have their sandbox as the working directory.
fn is_in(pid: i32, folder: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_and_process_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let script = "read line";
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", script, &dir.path().to_string_lossy()])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // A program that has just been executed has no command line for an instant.
        let mut left = of(dir.path());
        for _ in 0..500 {
            if left.len() == 2 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            left = of(dir.path());
        }
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].starts_with("folder "), "{left:?}");
        assert!(left[1].starts_with(&format!("process {} ", child.id())), "{left:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        let path = dir.path().to_owned();
        dir.close().unwrap();
        assert!(of(&path).is_empty());
    }
}
