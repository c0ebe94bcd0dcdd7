//! A task's output as it is written: the sandbox's `stdout`, line by line.
//!
//! Polled rather than watched: it works on every file system, and a person does not see 100 ms.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// A line that never ends is cut into pieces of this many bytes.
const LONGEST_LINE: usize = 8 * 1024;

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

    /// The lines that were completed since the last call.
    pub fn lines(&mut self) -> Vec<String> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Vec::new() };
        // What could not be read now is read the next time.
        let _ = file.read_to_end(&mut self.rest);
        let mut lines = Vec::new();
        while let Some((end, skip)) = line_end(&self.rest) {
            lines.push(text(&self.rest[..end]));
            self.rest.drain(..end + skip);
        }
        lines
    }

    /// What is left at the very end: also a last line without a newline.
    pub fn last_lines(&mut self) -> Vec<String> {
        let mut lines = self.lines();
        if !self.rest.is_empty() {
            lines.push(text(&std::mem::take(&mut self.rest)));
        }
        lines
    }
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
}
