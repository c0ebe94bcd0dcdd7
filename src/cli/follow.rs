//! A task's output as it is written: the sandbox's files, line by line.
//!
//! Polled rather than watched: it works on every file system, and a person does not see 100 ms.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// A line that never ends is cut into pieces of this many bytes.
const LONGEST_LINE: usize = 8 * 1024;
/// What is read at once.
const CHUNK: usize = 256 * 1024;

/// Reads from the beginning of the file, whenever it appears.
pub struct Follow {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end has not been written yet.
    rest: Vec<u8>,
}

impl Follow {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    /// Begins with the last lines of the file; an error where it cannot be read.
    pub fn begin(path: PathBuf, last: Option<usize>) -> io::Result<Self> {
        let mut file = open(&path)?;
        if let Some(last) = last {
            let from = beginning_of_last(&file, last)?;
            file.seek(SeekFrom::Start(from))?;
        }
        Ok(Self { path, file: Some(file), rest: Vec::new() })
    }

    /// The lines that were completed since the last call.
    pub fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while self.more(&mut lines) {}
        lines
    }

    /// What is left at the very end: also a last line without a newline.
    pub fn last_lines(&mut self) -> Vec<String> {
        let mut lines = self.lines();
        lines.extend(self.last_line());
        lines
    }

    /// The last line, where it has no newline.
    pub fn last_line(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| text(&std::mem::take(&mut self.rest)))
    }

    /// Adds the lines of the next part of the file; false when there is no more of it now.
    pub fn more(&mut self, lines: &mut Vec<String>) -> bool {
        if self.file.is_none() {
            self.file = open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return false };
        let before = self.rest.len();
        // What could not be read now is read the next time.
        let _ = file.take(CHUNK as u64).read_to_end(&mut self.rest);
        let mut begin = 0;
        while let Some((end, skip)) = line_end(&self.rest[begin..]) {
            lines.push(text(&self.rest[begin..begin + end]));
            begin += end + skip;
        }
        let read = self.rest.len() > before;
        self.rest.drain(..begin);
        read
    }

    /// Begins with the new file, where the old one was moved away or cut off: a rotation.
    pub fn follow_rotation(&mut self) {
        let Some(file) = &mut self.file else { return };
        let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(&self.path)) else { return };
        let is_other = (open.dev(), open.ino()) != (named.dev(), named.ino());
        if is_other {
            self.file = None;
        } else if file.stream_position().is_ok_and(|at| at > named.len()) {
            // It cannot fail at the beginning of a regular file.
            let _ = file.rewind();
        }
    }
}

/// A file of a sandbox, which belongs to the task's user: a link would lead this program, which is root, elsewhere, and
/// a pipe would hold it up.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Where the last `count` lines begin, looked for from the end.
fn beginning_of_last(file: &File, count: usize) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let (mut end, mut left) = (length, count);
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let begin = end.saturating_sub(CHUNK as u64);
        let part = &mut chunk[..(end - begin) as usize];
        file.read_exact_at(part, begin)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let at = begin + index as u64 + 1;
            // The newline at the end of the file begins no line.
            if at == length {
                continue;
            }
            match left {
                0 | 1 => return Ok(if left == 0 { length } else { at }),
                _ => left -= 1,
            }
        }
        end = begin;
    }
    Ok(if count == 0 { length } else { 0 })
}

/// Where the first line ends, and how many bytes its end takes.
fn line_end(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') {
        Some(end) => Some((end, 1)),
        None if bytes.len() >= LONGEST_LINE => Some((LONGEST_LINE, 0)),
        None => None,
    }
}

/// As a terminal may be given it: a task's escape sequences do not reach ours.
fn text(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    line.trim_end_matches('\r').chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn whole_lines_only_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let mut follow = Follow::new(path.clone());
        assert!(follow.lines().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(follow.lines(), ["one"]);
        file.write_all(b"o\r\n\x1b[31mthree").unwrap();
        assert_eq!(follow.lines(), ["two"]);
        assert_eq!(follow.last_lines(), ["?[31mthree"]);
        assert!(follow.last_lines().is_empty());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        std::fs::write(&path, vec![b'x'; LONGEST_LINE + 1]).unwrap();
        let mut follow = Follow::new(path);
        assert_eq!(follow.lines().len(), 1);
        assert_eq!(follow.last_lines(), ["x"]);
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let last = |text: &str, count| {
            std::fs::write(&path, text).unwrap();
            Follow::begin(path.clone(), Some(count)).unwrap().last_lines()
        };
        assert_eq!(last("a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(last("a\nb\nc", 2), ["b", "c"]);
        assert_eq!(last("a\nb\n", 5), ["a", "b"]);
        assert_eq!(last("a\n\n\n", 2), ["", ""]);
        assert_eq!(last("", 2), [""; 0]);
        assert_eq!(last("a\nb\n", 0), [""; 0]);
        let long: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
        assert_eq!(last(&long, 2), ["line 99998", "line 99999"]);
        assert_eq!(last(&long, 60_000).len(), 60_000);
    }

    #[test]
    fn a_rotated_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        std::fs::write(&path, "one\n").unwrap();
        let mut follow = Follow::begin(path.clone(), None).unwrap();
        assert_eq!(follow.lines(), ["one"]);
        std::fs::rename(&path, dir.path().join("stdout.1")).unwrap();
        std::fs::write(&path, "two\n").unwrap();
        follow.follow_rotation();
        assert_eq!(follow.lines(), ["two"]);
        std::fs::write(&path, "3\n").unwrap();
        follow.follow_rotation();
        assert_eq!(follow.lines(), ["3"]);
    }

    #[test]
    fn what_a_task_puts_in_place_of_its_output_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(Follow::begin(path.clone(), None).is_err());
        assert!(Follow::new(path.clone()).lines().is_empty());
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Follow::begin(path, None).is_err());
    }
}
