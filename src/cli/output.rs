//! What the verbs print: lines, tables, and lists in the form that the user asks for.
//!
//! A list ([`Listing`]) has a row an object. The verb fills in the cells for people and the JSON for programs once; the
//! format of `-o` decides what is printed.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use comfy_table::{presets, CellAlignment, LineStyle, Table};
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::is_deceptive;

/// So many bytes of a document are written at once.
const PIECE: usize = 64 << 10;

/// How a verb prints what it found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people, with more columns.
    Wide,
    /// For programs.
    Json,
    /// For programs that prefer it.
    Yaml,
    /// The names alone, one a line.
    Name,
}

/// The flag that every verb has which prints a list.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// How to print it
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Standard output that may be closed by its reader at any time. Clones write to the same place.
#[derive(Clone)]
pub struct Out {
    sink: Arc<Mutex<dyn Write + Send>>,
    closed: CancellationToken,
    /// Why something that was printed is lost, other than for want of a reader.
    lost: Arc<Mutex<Option<io::Error>>>,
    /// What ends up on a terminal, and not in a file or a program.
    terminal: bool,
}

impl Out {
    pub fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        Self::to(io::stdout(), terminal)
    }

    fn to(sink: impl Write + Send + 'static, terminal: bool) -> Self {
        let (closed, lost) = (CancellationToken::new(), Arc::default());
        Self { sink: Arc::new(Mutex::new(sink)), closed, lost, terminal }
    }

    /// Standard error, for what has its place there.
    pub fn stderr() -> Self {
        let terminal = io::stderr().is_terminal();
        Self::to(io::stderr(), terminal)
    }

    /// Collects what is printed, for a screen that is then drawn at once.
    pub fn collecting(&self) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Collected(Arc::clone(&bytes));
        (Self { sink: Arc::new(Mutex::new(sink)), ..self.clone() }, bytes)
    }

    /// Collects what is printed, as in a file.
    pub fn in_memory() -> (Self, Arc<Mutex<Vec<u8>>>) {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        (Self::to(Collected(Arc::clone(&bytes)), false), bytes)
    }

    /// Whether a person looks at it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The text in the colour, where the output is a terminal and NO_COLOR is not set.
    pub fn coloured(&self, colour: Colour, text: &str) -> String {
        let wanted = self.terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        match wanted {
            true => format!("\u{1b}[{}m{text}\u{1b}[0m", colour as u8),
            false => text.to_owned(),
        }
    }

    /// Prints one line. It is dropped when the reader is gone; see [`Out::closed`].
    pub fn line(&self, text: impl AsRef<str>) {
        self.write(format!("{}\n", text.as_ref()).as_bytes());
    }

    /// Prints a document in JSON or YAML; in any other format in JSON, too.
    pub fn value(&self, format: Format, value: &impl Serialize) {
        // Plain data with text keys: neither form can fail, and JSON is YAML as well.
        let yaml = (format == Format::Yaml).then(|| serde_saphyr::to_string(value).ok()).flatten();
        match yaml {
            Some(text) => self.part(&text),
            None => {
                let mut pieces = BufWriter::with_capacity(PIECE, Pieces(self));
                let _ = serde_json::to_writer_pretty(&mut pieces, value);
                let _ = pieces.flush();
                drop(pieces);
                self.part("\n");
            }
        }
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
            Ok(()) => {}
            // A full disk behind standard output must not stop a teardown; the program fails at its end.
            Err(error) => {
                self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    }

    /// Why some of the output is lost, if it is.
    pub fn lost(&self) -> Option<io::Error> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Cancelled when the reader has gone away.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

/// The output as a writer that never fails: [`Out`] keeps what went wrong.
struct Pieces<'a>(&'a Out);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A list whose items are made as they are printed: of ten thousand documents one is in memory.
pub struct Each<F>(pub F);

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0())
    }
}

/// What a colour says; the numbers are the terminal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// A sink in memory.
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A table without a frame: a header and rows, two blanks between the columns. Names are others': what a terminal
/// would obey is left out.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    plain_rows(header, rows.iter().map(|row| row.iter()))
}

fn plain_rows<'a>(header: &[&str], rows: impl Iterator<Item = impl Iterator<Item = &'a String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.map(|cell| cell.replace(is_deceptive, " ")));
    }
    let last = header.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A list of objects.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Over the cells of each row.
    pub header: Vec<&'static str>,
    /// Over the further cells that only the wide form has.
    pub wide_header: Vec<&'static str>,
    pub rows: Vec<Row>,
    /// With a frame, as calicoctl has always drawn its tables; else columns alone.
    pub framed: bool,
    /// The cells of a framed table begin at the left, instead of standing in the middle.
    pub left: bool,
}

/// One object of a list.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub name: String,
    /// A cell may have several lines.
    pub cells: Vec<String>,
    pub wide: Vec<String>,
    pub json: Value,
}

impl Listing {
    /// A list whose table has calicoctl's frame.
    pub fn framed(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), framed: true, ..Self::default() }
    }

    /// A list whose table has columns alone.
    pub fn plain(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), ..Self::default() }
    }

    /// Prints the list: the header alone, `[]` or no line where it is empty.
    pub fn print(&self, format: Format, out: &Out) {
        match format {
            Format::Table => out.line(self.table(false)),
            Format::Wide => out.line(self.table(true)),
            Format::Json | Format::Yaml => {
                out.value(format, &Each(|| self.rows.iter().map(|row| &row.json)));
            }
            Format::Name => self.rows.iter().for_each(|row| out.line(row.name.replace(is_deceptive, " "))),
        }
    }

    fn table(&self, wide: bool) -> String {
        let header: Vec<&str> =
            self.header.iter().chain(self.wide_header.iter().filter(|_| wide)).copied().collect();
        let rows = self.rows.iter().map(|row| row.cells.iter().chain(row.wide.iter().filter(|_| wide)));
        match self.framed {
            true => framed_rows(&header, rows, self.left),
            false => plain_rows(&header, rows),
        }
    }
}

/// A table with a frame of `+`, `-` and `|`.
pub fn framed(header: &[&str], rows: &[Vec<String>], left: bool) -> String {
    framed_rows(header, rows.iter().map(|row| row.iter()), left)
}

fn framed_rows<'a>(
    header: &[&str],
    rows: impl Iterator<Item = impl Iterator<Item = &'a String>>,
    left: bool,
) -> String {
    let mut table = Table::new();
    let rule = LineStyle::new('+', '-', '+', '+');
    table.load_style(presets::ASCII_FULL_CONDENSED.header_separator(rule)).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.map(|cell| cleaned(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(if left { CellAlignment::Left } else { CellAlignment::Center });
    }
    table.to_string()
}

/// A cell with its own line breaks, without what a terminal would obey.
fn cleaned(cell: &str) -> String {
    cell.replace(|c| c != '\n' && is_deceptive(c), " ")
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
        let out = Out::to(Gone, false);
        out.line("hello");
        assert!(out.closed().is_cancelled());
    }
}
