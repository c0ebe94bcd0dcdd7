//! Reads files of this host, none of them for longer or to a greater length than is good.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::logging::Component;

/// A regular file's first bytes; a pipe would have to be waited for.
pub fn read_some(path: &Path, most: u64) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The newest lines of a log in pieces, this many bytes at most.
pub fn newest(component: Component, logs: &Path, most: u64) -> io::Result<String> {
    let mut newest_first = Vec::new();
    let mut left = most;
    for (_, mut file) in component.pieces(logs)?.into_iter().rev() {
        let piece = tail(&mut file, left)?;
        left = left.saturating_sub(piece.len() as u64);
        newest_first.push(piece);
        if left == 0 {
            break;
        }
    }
    newest_first.reverse();
    Ok(newest_first.concat())
}

/// The last lines of a file of another program's.
pub fn last_lines(path: &Path, most: u64) -> io::Result<String> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    tail(&mut file, most)
}

/// From a line's begin on: half a line could hold half a secret, which no name tells any more.
fn tail(file: &mut File, most: u64) -> io::Result<String> {
    let length = file.metadata()?.len();
    let begin = length.saturating_sub(most);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if begin == 0 {
        return Ok(text);
    }
    Ok(text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default())
}

/// The names in a folder, in order; none where there is no such folder.
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_with_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "password=one two\nthree\nfour\n").unwrap();
        assert_eq!(last_lines(&path, 100).unwrap(), "password=one two\nthree\nfour\n");
        assert_eq!(last_lines(&path, 14).unwrap(), "three\nfour\n");
        assert!(last_lines(folder.path(), 14).is_err());
    }

    #[test]
    fn a_log_is_read_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("gc")).unwrap();
        for (name, text) in [("current.2", "1\n"), ("current.1", "22\n33\n"), ("current", "4\n")] {
            fs::write(folder.path().join("gc").join(name), text).unwrap();
        }
        assert_eq!(newest(Component::Gc, folder.path(), 100).unwrap(), "1\n22\n33\n4\n");
        assert_eq!(newest(Component::Gc, folder.path(), 6).unwrap(), "33\n4\n");
    }
}
