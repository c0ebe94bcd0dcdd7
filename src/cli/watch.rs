//! The flag `--watch`: what a verb prints, again and again until Ctrl-C or until the reader closes our output.
//!
//! On a terminal each print takes the place of the one before; elsewhere it follows it.

use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::interrupt::Interrupt;
use super::output::Out;
use super::{complaint, Failed};

/// Cursor to the first line, and everything behind it erased: it flickers less than an empty screen.
const HOME: &str = "\u{1b}[H\u{1b}[2J";

/// How often to print.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Watch {
    /// Print it again every 2 seconds, or every SECONDS, until Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = seconds
    )]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.1..=86_400.0).contains(number));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "it has to be a number of seconds from 0.1 to 86400, such as --watch=5".to_owned())
}

impl Watch {
    /// Prints once; with the flag again and again. The exit code is the last print's.
    ///
    /// An error of the first print is the verb's. A later one, such as a datastore that went away, is printed in
    /// place of what could not be read, and the next print is tried all the same.
    pub async fn repeat(
        &self,
        out: &Out,
        mut print: impl AsyncFnMut(&Out) -> Result<ExitCode, Failed>,
    ) -> Result<ExitCode, Failed> {
        let Some(pause) = self.watch else { return print(out).await };
        let interrupt = Interrupt::listen(out)?;
        let mut first = true;
        let mut code = ExitCode::SUCCESS;
        loop {
            let (page, bytes) = out.collecting();
            let printed = tokio::select! {
                printed = print(&page) => printed,
                () = interrupt.asked() => return Ok(code),
            };
            code = match printed {
                Ok(code) => code,
                Err(error) if first => return Err(error),
                Err(error) => {
                    page.line(complaint(error.as_ref()));
                    ExitCode::FAILURE
                }
            };
            first = false;
            let text =
                String::from_utf8_lossy(&bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
            match out.is_terminal() {
                true => out.part(&format!("{HOME}{text}")),
                false => out.part(&text),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = interrupt.asked() => {
                    // A reader that has gone is no failure, whatever the last print said.
                    return Ok(if out.closed().is_cancelled() { ExitCode::SUCCESS } else { code });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test]
    async fn without_the_flag_it_prints_once() {
        let (out, bytes) = Out::stdout().collecting();
        let code = Watch::default()
            .repeat(&out, async |page: &Out| {
                page.line("one");
                Ok(ExitCode::from(2))
            })
            .await
            .unwrap();
        assert_eq!(code, ExitCode::from(2));
        assert_eq!(bytes.lock().unwrap().as_slice(), b"one\n");
    }

    #[tokio::test]
    async fn it_goes_on_after_an_error_and_ends_when_the_reader_goes() {
        let (out, bytes) = Out::stdout().collecting();
        let mut number = 0;
        Watch { watch: Some(Duration::from_millis(1)) }
            .repeat(&out, async |page: &Out| {
                number += 1;
                match number {
                    2 => Err(io::Error::other("etcd is away").into()),
                    4 => {
                        out.closed().cancel();
                        Ok(ExitCode::SUCCESS)
                    }
                    _ => {
                        page.line(format!("page {number}"));
                        Ok(ExitCode::SUCCESS)
                    }
                }
            })
            .await
            .unwrap();
        let text = String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("page 1\ncalico-mesos: etcd is away\npage 3\n"), "{text}");
    }

    #[tokio::test]
    async fn the_first_error_is_the_verbs() {
        let (out, _) = Out::stdout().collecting();
        let result = Watch { watch: Some(Duration::from_millis(1)) }
            .repeat(&out, async |_: &Out| Err(io::Error::other("etcd is away").into()))
            .await;
        assert_eq!(result.unwrap_err().to_string(), "etcd is away");
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "NaN", "inf", "1e9", "two"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
