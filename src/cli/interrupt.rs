//! Ctrl-C, SIGTERM and a closed terminal, counted: the first asks for an end, the second for haste.
//!
//! No signal ever ends the program itself, so that everything that was made is always removed.

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::watch;

use super::output::Out;

/// Listens from its making on. Clones see the same count.
#[derive(Clone)]
pub struct Interrupt {
    count: watch::Receiver<u32>,
}

impl Interrupt {
    /// Also counts the end of the reader of our output.
    pub fn listen(out: &Out) -> std::io::Result<Self> {
        let mut int = signal(SignalKind::interrupt())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let closed = out.closed().clone();
        let (sender, count) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let unread = !closed.is_cancelled();
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                    _ = hangup.recv() => {}
                    () = closed.cancelled(), if unread => {}
                    () = sender.closed() => return,
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { count })
    }

    /// How often the user interrupted.
    pub fn count(&self) -> u32 {
        *self.count.borrow()
    }

    /// Waits for the first interrupt.
    pub async fn asked(&self) {
        self.at_least(1).await;
    }

    /// Waits for the second interrupt.
    pub async fn urged(&self) {
        self.at_least(2).await;
    }

    async fn at_least(&self, number: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= number).await.is_err() {
            // The listener lives as long as the program: without it there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }
}
