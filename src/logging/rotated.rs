//! A file of lines that many processes write at once, kept in pieces: `current`, `current.1` to `current.9`.
//!
//! No writer keeps it open. A line is one `write(2)` at the end of the file that the name leads to now, so that lines
//! of several writers never mix, and no writer has to learn of a rotation:
//!
//! ```text
//!  open, append ── full? ── lock ── still full? ── current.8 ► .9 … current ► current.1 ── open anew
//!       └─────────── no ─────────────────────────────────────────────────────────────────────┴──► write
//! ```
//!
//! The lock (`.current.lock`) is for rotating only and not waited for: a writer that finds it taken appends to the piece
//! that is there, which becomes longer by the lines of that moment. Only at twice its length does a writer pause, and
//! only one that may ([`Rotated::append`]): [`Rotated::append_now`] fails instead, for a pause would stop everything
//! else on the thread of a runtime. A process that is stopped while it rotates costs lines, never space, and no writer
//! more than [`ATTEMPTS`] pauses.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use rustix::fs::{renameat_with, RenameFlags, CWD};

use crate::host::files::make_private;

/// Bytes a piece, and how many pieces there are, where nothing else is set.
const BOUNDS: (u64, u32) = (1_000_000, 10);
/// How many pieces the release before kept.
const PIECES_BEFORE: u32 = 10;
/// Between looks at something that others are about to change.
const PAUSE: Duration = Duration::from_micros(500);
/// How often the end of the file is looked at before a line there counts as cut off.
const LOOKS: u32 = 3;
/// How often a line is tried, with a pause when the file has twice its length: 50 ms at most.
const ATTEMPTS: u32 = 100;

const UNFINISHED: &str = "it is full, and another process has begun to rotate it and does not finish";

/// The name of such a file; nothing is touched before the first line.
#[derive(Debug, Clone)]
pub struct Rotated {
    path: PathBuf,
    length: u64,
    pieces: u32,
    before: Option<PathBuf>,
}

impl Rotated {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), length: BOUNDS.0, pieces: BOUNDS.1, before: None }
    }

    /// Other bounds than the usual ten pieces of a megabyte.
    pub fn bounded(self, length: u64, pieces: u32) -> Self {
        Self { length, pieces: pieces.max(2), ..self }
    }

    /// Goes on with the file of another name, and its pieces, instead of a new one.
    ///
    /// A program of the release before may still write there: to the file that it has open, wherever that is now, and
    /// then to a new one of the old name. The next rotation goes on with that one.
    pub fn succeeding(self, before: impl Into<PathBuf>) -> Self {
        Self { before: Some(before.into()), ..self }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line; its newline is added here. It is whole in the file, or there was an error. Waits 50 ms at
    /// most for a rotation that another process has begun.
    pub fn append(&self, line: &str) -> io::Result<()> {
        self.place(line, || {
            std::thread::sleep(PAUSE);
            Ok(())
        })
    }

    /// The same without a wait: an error of the kind `WouldBlock` where there would be one.
    pub fn append_now(&self, line: &str) -> io::Result<()> {
        self.place(line, || Err(io::Error::new(io::ErrorKind::WouldBlock, UNFINISHED)))
    }

    /// `pause` comes before each further attempt, or ends them.
    fn place(&self, line: &str, pause: impl Fn() -> io::Result<()>) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let mut file = self.open()?;
            if self.is_full(file.metadata()?.len(), line) {
                self.make_room(line)?;
                file = self.open()?;
                if file.metadata()?.len() > self.length.saturating_mul(2) {
                    pause()?;
                    continue;
                }
            }
            // An unfinished line that cannot be waited for is ended: if its writer is still at work, an empty line
            // is no harm.
            let begin = if ends_whole(&file, &pause)? { "" } else { "\n" };
            let text = format!("{begin}{line}\n");
            if file.write(text.as_bytes())? < text.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            // Stopped between open and write, for as long as it takes to rotate the file out of existence?
            if file.metadata()?.nlink() > 0 {
                return Ok(());
            }
        }
        Err(io::Error::other(UNFINISHED))
    }

    fn is_full(&self, length: u64, line: &str) -> bool {
        length > 0 && length.saturating_add(line.len() as u64 + 1) > self.length
    }

    /// Makes file and folder where they are missing. What lies there instead of a file is not written to:
    /// a pipe could hold the writer up, a link lead elsewhere.
    fn open(&self) -> io::Result<File> {
        let mut options = careful();
        options.read(true).append(true).mode(0o640);
        let opened = match options.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = self.path.parent().unwrap_or(Path::new("/"));
                make_private(folder)?;
                self.take_over();
                options.create(true).open(&self.path)?
            }
            opened => opened?,
        };
        match opened.metadata()?.is_file() {
            true => Ok(opened),
            false => Err(io::Error::other("it is not a regular file")),
        }
    }

    /// Puts the file of the release before in the place of a missing one, and its pieces beside it. What cannot be moved
    /// stays, for readers to find there.
    fn take_over(&self) {
        let Some(before) = self.before.as_deref() else { return };
        // Each writer that misses the file tries this before it makes a new one: the old one is never left behind.
        if !move_unless_there(before, &self.path) {
            return;
        }
        let Ok(Some(_lock)) = self.lock() else { return };
        // Should another process have rotated meanwhile, the older ones stay together where they are.
        let pieces = (1..PIECES_BEFORE).map(|number| (piece(before, number), self.piece(number)));
        pieces.take_while(|(from, to)| move_unless_there(from, to)).for_each(drop);
    }

    /// Its holder may rename pieces. None: another process has it.
    fn lock(&self) -> io::Result<Option<File>> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let lock = self.path.with_file_name(format!(".{name}.lock"));
        let lock = careful().create(true).write(true).mode(0o600).open(lock)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Moves every piece on by one, unless another process does so or was quicker.
    fn make_room(&self, line: &str) -> io::Result<()> {
        let Some(_lock) = self.lock()? else { return Ok(()) };
        match fs::metadata(&self.path) {
            Ok(meta) if self.is_full(meta.len(), line) => self.shift(),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A rotation that was cut short has left a gap: only what is before the first one moves, so that nothing is
    /// lost before its time.
    fn shift(&self) -> io::Result<()> {
        let last = self.pieces - 1;
        let free = (1..last).find(|number| !self.piece(*number).exists()).unwrap_or(last);
        for number in (1..free).rev() {
            fs::rename(self.piece(number), self.piece(number + 1))?;
        }
        fs::rename(&self.path, self.piece(1))?;
        // Of a configuration that kept more.
        (self.pieces..).take_while(|number| fs::remove_file(self.piece(*number)).is_ok()).for_each(drop);
        Ok(())
    }

    fn piece(&self, number: u32) -> PathBuf {
        piece(&self.path, number)
    }
}

fn piece(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

/// Whatever of that name there is at that moment is moved, and replaces nothing.
fn move_unless_there(from: &Path, to: &Path) -> bool {
    is_file(from) && renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).is_ok()
}

/// Never something else's place or a pipe without a reader.
fn careful() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    options
}

/// A disk that was full, or a `kill -9`, may have cut the last line off: it becomes a line of its own. A line that is
/// just being written looks the same for a moment; should the moment be long, an empty line is no harm.
fn ends_whole(file: &File, pause: impl Fn() -> io::Result<()>) -> io::Result<bool> {
    for _ in 0..LOOKS {
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        }
        if last == *b"\n" {
            return Ok(true);
        }
        if pause().is_err() {
            // Gives way once to a writer on the same processor, which is not a wait.
            std::thread::yield_now();
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn pieces_move_on_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let log = Rotated::new(folder.path().join("made/x.log")).bounded(10, 3);
        for line in ["one", "two", "three", "four", "five", "longer than a piece", "six"] {
            log.append(line).unwrap();
        }
        assert_eq!(read(&log.path), "six\n");
        assert_eq!(read(&log.piece(1)), "longer than a piece\n");
        assert_eq!(read(&log.piece(2)), "four\nfive\n");
        assert!(!log.piece(3).exists());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(log.path.parent().unwrap()), 0o700);
        assert_eq!(mode(&log.path) & 0o027, 0, "others may read it");
    }

    #[test]
    fn pieces_beyond_a_lower_number_go() {
        let folder = tempfile::tempdir().unwrap();
        let log = Rotated::new(folder.path().join("x.log")).bounded(1, 6);
        for line in ["a", "b", "c", "d", "e"] {
            log.append(line).unwrap();
        }
        let fewer = log.clone().bounded(1, 3);
        fewer.append("f").unwrap();
        let pieces: Vec<bool> = (1..6).map(|number| log.piece(number).exists()).collect();
        assert_eq!(pieces, [true, true, false, false, false]);
        assert_eq!((read(&log.path), read(&log.piece(2))), ("f\n".into(), "d\n".into()));
    }

    #[test]
    fn a_rotation_that_was_cut_short_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = Rotated::new(folder.path().join("x.log")).bounded(1, 5);
        for line in ["a", "b", "c", "d"] {
            log.append(line).unwrap();
        }
        // a is in .3, b in .2, c in .1, d in the file: killed after .3 and .2 had moved on.
        fs::rename(log.piece(3), log.piece(4)).unwrap();
        fs::rename(log.piece(2), log.piece(3)).unwrap();
        log.append("e").unwrap();
        let pieces: Vec<String> = (1..5).map(|number| read(&log.piece(number))).collect();
        assert_eq!((read(&log.path).as_str(), pieces.concat().as_str()), ("e\n", "d\nc\nb\na\n"));
    }

    #[test]
    fn a_stopped_rotation_stops_no_writer_and_takes_no_space() {
        type Append = fn(&Rotated, &str) -> io::Result<()>;
        let appends: [(Append, io::ErrorKind); 2] =
            [(Rotated::append, io::ErrorKind::Other), (Rotated::append_now, io::ErrorKind::WouldBlock)];
        for (append, kind) in appends {
            let folder = tempfile::tempdir().unwrap();
            let log = Rotated::new(folder.path().join("x.log")).bounded(10, 3);
            let lock = File::create(folder.path().join(".x.log.lock")).unwrap();
            lock.lock().unwrap();
            let error = loop {
                match append(&log, "1234") {
                    Ok(()) => assert!(fs::metadata(&log.path).unwrap().len() <= 25),
                    Err(error) => break error,
                }
            };
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, UNFINISHED));
            assert_eq!(read(&log.path), "1234\n".repeat(5));
            drop(lock);
            append(&log, "5678").unwrap();
            assert_eq!(read(&log.path), "5678\n");
        }
    }

    #[test]
    fn a_line_cut_short_gets_its_newline_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let log = Rotated::new(folder.path().join("x.log"));
        fs::write(&log.path, "whole\nhal").unwrap();
        log.append("next").unwrap();
        assert_eq!(read(&log.path), "whole\nhal\nnext\n");
        fs::write(&log.path, "whole\nhal").unwrap();
        log.append_now("next").unwrap();
        assert_eq!(read(&log.path), "whole\nhal\nnext\n");
    }

    #[test]
    fn only_files_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "").unwrap();
        let link = Rotated::new(folder.path().join("link"));
        std::os::unix::fs::symlink(&elsewhere, &link.path).unwrap();
        let pipe = Rotated::new(folder.path().join("pipe"));
        nix::unistd::mkfifo(&pipe.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(link.append("x").is_err() && pipe.append("x").is_err());
        assert_eq!(read(&elsewhere), "");
        // Nor does the lock hold a process up, for any kind of file in its place.
        let full = Rotated::new(folder.path().join("full")).bounded(1, 2);
        nix::unistd::mkfifo(&folder.path().join(".full.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        full.append("x").unwrap();
        assert!(full.append("y").is_err());
    }
}
