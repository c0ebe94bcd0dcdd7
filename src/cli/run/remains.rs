//! What is left of a place after it was closed: its folder, mounts in it, processes that name it or are in it.

use std::path::Path;

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
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into()).collect();
        if pid.parse::<u32>().is_ok_and(|pid| pid != std::process::id())
            && (words.iter().any(|word| word.contains(&*name)) || is_in(&entry.path(), folder))
        {
            left.push(format!("process {pid} ({})", words.join(" ").trim()));
        }
    }
    left
}

/// Executors and commands have their sandbox as the working directory.
fn is_in(process: &Path, folder: &Path) -> bool {
    std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(folder))
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
