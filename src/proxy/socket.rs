//! A client's connection, held by the HTTP server and watched beside it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{shutdown, Shutdown};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::limits::PROXY_READ;

/// How often a client that has ended its side is looked at: the kernel's event has come already.
const LOOK: Duration = Duration::from_millis(500);

/// Clones are the same connection.
#[derive(Debug, Clone)]
pub(super) struct ClientSocket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: Kind,
    /// Bytes have come since the last request was handed over, see [`ClientSocket::await_request`].
    has_begun: AtomicBool,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! on {
    ($socket:expr, $stream:ident => $do:expr) => {
        match &$socket.0.stream {
            Kind::Tcp($stream) => $do,
            Kind::Unix($stream) => $do,
        }
    };
}

impl ClientSocket {
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        // Answers are small and waited for.
        stream.set_nodelay(true)?;
        Ok(Self::of(Kind::Tcp(stream)))
    }

    pub fn unix(stream: UnixStream) -> Self {
        Self::of(Kind::Unix(stream))
    }

    fn of(stream: Kind) -> Self {
        Self(Arc::new(Shared { stream, has_begun: AtomicBool::new(false) }))
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self.0.stream, Kind::Tcp(_))
    }

    /// The client sends nothing more: it has ended its side or has gone. What it sent before may still be unread.
    pub async fn ended(&self) {
        // Priority data alone would be another reason, and is of no interest here: of both the kernel tells once.
        let ready = on!(self, stream => stream.ready(Interest::PRIORITY).await);
        if !ready.is_ok_and(|ready| ready.is_read_closed()) {
            std::future::pending::<()>().await;
        }
    }

    /// After [`ClientSocket::ended`]: the client reads nothing more either. Over TCP only a write finds this out.
    pub async fn gone(&self) {
        while !self.is_gone() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_gone(&self) -> bool {
        let mut look = [PollFd::new(self.as_fd(), PollFlags::empty())];
        // What cannot be looked at is not there.
        poll(&mut look, PollTimeout::ZERO).is_err()
            || look[0]
                .revents()
                .is_some_and(|found| found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Writes what fits at once, and ends the connection.
    pub fn dismiss(self, bytes: &[u8]) {
        // A client that is not there needs no answer.
        let _ = on!(self, stream => stream.try_write(bytes));
    }

    /// A request has been read: the time limit for the next one begins with its first byte.
    pub fn await_request(&self) {
        self.0.has_begun.store(false, Ordering::Relaxed);
    }

    /// The client has begun a request that is not whole.
    pub fn is_within_request(&self) -> bool {
        self.0.has_begun.load(Ordering::Relaxed)
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        on!(self, stream => stream.as_fd())
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = to.remaining().min(PROXY_READ);
        loop {
            ready!(on!(self, stream => stream.poll_read_ready(cx)))?;
            let part = to.initialize_unfilled_to(room);
            match on!(self, stream => stream.try_read(part)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(length) => {
                    to.advance(length);
                    if length > 0 {
                        self.0.has_begun.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl ClientSocket {
    fn poll_write_by(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&Self) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(on!(self, stream => stream.poll_write_ready(cx)))?;
            match write(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |socket| on!(socket, stream => stream.try_write(bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |socket| on!(socket, stream => stream.try_write_vectored(parts)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(self.as_fd().as_raw_fd(), Shutdown::Write).map_err(io::Error::from))
    }
}
