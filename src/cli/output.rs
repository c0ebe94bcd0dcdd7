//! What the verbs print: lines, and tables whose columns line up.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex};

use comfy_table::{presets, Table};
use tokio_util::sync::CancellationToken;

use crate::error::is_deceptive;

/// How a verb prints what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Standard output that may be closed by its reader at any time. Clones write to the same place.
#[derive(Clone)]
pub struct Out {
    sink: Arc<Mutex<dyn Write + Send>>,
    closed: CancellationToken,
}

impl Out {
    pub fn stdout() -> Self {
        Self { sink: Arc::new(Mutex::new(io::stdout())), closed: CancellationToken::new() }
    }

    /// Prints one line. It is dropped when the reader is gone; see [`Out::closed`].
    pub fn line(&self, text: impl AsRef<str>) {
        self.write(format!("{}\n", text.as_ref()).as_bytes());
    }

    /// Part of a line, shown at once: a question, or a beginning that the next line completes.
    pub fn part(&self, text: &str) {
        self.write(text.as_bytes());
    }

    fn write(&self, bytes: &[u8]) {
        if self.closed.is_cancelled() {
            return;
        }
        let Ok(mut sink) = self.sink.lock() else { return };
        match sink.write_all(bytes).and_then(|()| sink.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.closed.cancel(),
            // A full disk behind standard output must not stop a teardown.
            Ok(()) | Err(_) => {}
        }
    }

    /// Cancelled when the reader has gone away.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

/// A table without lines: a header and rows, two blanks between the columns. Names are others': what a terminal
/// would obey is left out.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| cell.replace(is_deceptive, " ")));
    }
    let last = header.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// `1 veth`, `2 veths`, `2 Consul entries`.
pub fn count(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, _) => format!("1 {noun}"),
        (_, noun) if noun.ends_with('y') => format!("{number} {}ies", &noun[..noun.len() - 1]),
        (_, noun) if noun.ends_with('s') => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["testapp.1".to_owned(), "RUNNING".into()], vec!["a".into(), "KILLED".into()]];
        assert_eq!(
            table(&["TASK", "STATE"], &rows),
            "TASK       STATE\ntestapp.1  RUNNING\na          KILLED"
        );
        let rows = [vec!["a\u{1b}[2J\nforged".to_owned()]];
        assert_eq!(table(&["TASK"], &rows), "TASK\na [2J forged");
    }

    #[test]
    fn plurals() {
        assert_eq!(count(1, "Consul entry"), "1 Consul entry");
        assert_eq!(count(2, "Consul entry"), "2 Consul entries");
        assert_eq!(count(0, "veth"), "0 veths");
        assert_eq!(count(2, "address"), "2 addresses");
    }

    #[test]
    fn a_closed_reader_is_told_and_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let out = Out { sink: Arc::new(Mutex::new(Gone)), closed: CancellationToken::new() };
        out.line("hello");
        assert!(out.closed().is_cancelled());
    }
}
