//! The container's output, on its way into the executor's own stdout and stderr.
//!
//! Attached before the start, so that nothing is missed, and written frame by frame: what the workload
//! wrote at once is written at once. A sink that fails (a logger that died, a full disk) is logged once, and the stream
//! is drained further: a full pipe would stop the workload.
//!
//! When dockerd goes away the stream ends although the container may live on (`live-restore`; without
//! it containers die with their daemon). Then the rest is read through the logs API, from the moment of the
//! last frame on. Docker stamps a line when it reads it and we when we get it, some tens of microseconds
//! later: lines of just that moment can be missed or doubled. With a log driver that cannot be read
//! the stream is attached anew, and the output of the gap is lost.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::docker::{status_error, Docker};
use super::error::DockerError;
use super::frames::{Frames, StdStream};
use super::inspect::{daemon_words, segment};
use crate::limits::DOCKER_CALL;

const DOING: &str = "stream the container's output";
/// After the stream's end Docker may call the container running for this long, though it is not.
const SETTLE: Duration = Duration::from_secs(2);
const READ: usize = 16 << 10;

/// Where one stream goes.
#[derive(Debug)]
pub struct Sink(Target);

#[derive(Debug)]
enum Target {
    /// Regular files take what they are given at once.
    File(File),
    /// Anything else may block, which a thread of its own has to bear.
    Slow(tokio::fs::File),
    /// It failed; what comes is thrown away.
    Broken,
}

impl Sink {
    /// The executor's own stdout.
    pub fn stdout() -> io::Result<Self> {
        Self::of(io::stdout())
    }

    /// The executor's own stderr.
    pub fn stderr() -> io::Result<Self> {
        Self::of(io::stderr())
    }

    /// A duplicate of any descriptor.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let file = File::from(fd.as_fd().try_clone_to_owned()?);
        Ok(Self(match file.metadata()?.is_file() {
            true => Target::File(file),
            false => Target::Slow(tokio::fs::File::from_std(file)),
        }))
    }

    pub(super) async fn write(&mut self, chunk: &[u8]) {
        let written = match &mut self.0 {
            Target::File(file) => file.write_all(chunk),
            Target::Slow(file) => match file.write_all(chunk).await {
                Ok(()) => file.flush().await,
                error => error,
            },
            Target::Broken => return,
        };
        if let Err(error) = written {
            // A disk may get room again; a broken pipe stays broken.
            tracing::warn!(%error, "cannot pass on the container's output; the container runs on");
            if error.kind() != io::ErrorKind::StorageFull {
                self.0 = Target::Broken;
            }
        }
    }
}

/// The container's output from the moment of [`Docker::attach`] on.
#[derive(Debug)]
pub struct OutputStream {
    docker: Docker,
    id: String,
    source: Source,
    /// When the last frame came, since 1970.
    last: Duration,
}

#[derive(Debug)]
enum Source {
    Attached(Box<TokioIo<Upgraded>>),
    Logs(Incoming),
}

impl Docker {
    /// Attaches to stdout and stderr. To be called before `start`.
    pub async fn attach(&self, id: &str) -> Result<OutputStream, DockerError> {
        let source = timeout(DOCKER_CALL, self.attach_source(id));
        let source = source.await.unwrap_or_else(|_| Err(self.slow(DOING, DOCKER_CALL)))?;
        Ok(OutputStream { docker: self.clone(), id: id.to_owned(), source, last: now() })
    }

    async fn attach_source(&self, id: &str) -> Result<Source, DockerError> {
        let path = format!("/containers/{}/attach?stream=1&stdout=1&stderr=1", segment(id));
        let upgrade = [("connection", "Upgrade"), ("upgrade", "tcp")];
        let answer = self
            .transport
            .ask(Method::POST, &path, &upgrade)
            .await
            .map_err(|error| self.send_error(DOING, error))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status().as_u16();
            let bytes = answer.into_body().collect().await.map_err(|error| self.away(error))?.to_bytes();
            return Err(status_error(DOING, status, daemon_words(&bytes)));
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(|error| self.away(error))?;
        Ok(Source::Attached(Box::new(TokioIo::new(upgraded))))
    }

    async fn logs_source(&self, id: &str, since: Duration) -> Result<Source, DockerError> {
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let path = format!("/containers/{}/logs?follow=1&stdout=1&stderr=1&since={since}", segment(id));
        let answer = self
            .transport
            .ask(Method::GET, &path, &[])
            .await
            .map_err(|error| self.send_error(DOING, error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Source::Logs(answer.into_body()));
        }
        let bytes = answer.into_body().collect().await.map_err(|error| self.away(error))?.to_bytes();
        Err(status_error(DOING, status.as_u16(), daemon_words(&bytes)))
    }
}

impl OutputStream {
    /// Writes everything until the container has ended (or is gone). While the daemon is away it goes on
    /// trying: a caller that learns of the end from elsewhere drops this after a moment of grace.
    pub async fn pump(mut self, mut stdout: Sink, mut stderr: Sink) {
        loop {
            if let Err(error) = self.drain(&mut stdout, &mut stderr).await {
                tracing::debug!(%error, "the stream of the container's output broke");
            }
            if !self.resume().await {
                return;
            }
        }
    }

    /// One source until its end.
    async fn drain(&mut self, stdout: &mut Sink, stderr: &mut Sink) -> io::Result<()> {
        let mut frames = Frames::default();
        let mut buffer = vec![0; READ];
        loop {
            match &mut self.source {
                Source::Attached(stream) => match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    length => frames.push(&buffer[..length]),
                },
                Source::Logs(body) => match body.frame().await {
                    None => return Ok(()),
                    Some(frame) => {
                        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                            frames.push(&data);
                        }
                    }
                },
            }
            while let Some((stream, chunk)) = frames.take().map_err(io::Error::other)? {
                match stream {
                    StdStream::Out => stdout.write(&chunk).await,
                    StdStream::Err => stderr.write(&chunk).await,
                }
            }
            self.last = now();
        }
    }

    /// The stream is at its end. Finds out whether the container is, too; if not, opens a new one.
    async fn resume(&mut self) -> bool {
        let mut ended = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            match self.docker.inspect_once(&self.id, DOCKER_CALL).await {
                Ok(inspected) if !inspected.running => return false,
                Ok(_) if ended.elapsed() > SETTLE => break,
                Ok(_) => {}
                Err(error) if error.is_passing() => {
                    // The daemon was away: the stream did not end because of the container.
                    ended = ended.checked_sub(SETTLE).unwrap_or(ended);
                }
                Err(_) => return false,
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        let reopened = match self.docker.logs_source(&self.id, self.last).await {
            Ok(source) => Ok(source),
            Err(_) => self.docker.attach_source(&self.id).await,
        };
        match reopened {
            Ok(source) => {
                tracing::warn!("the stream of the container's output broke; it is resumed");
                self.source = source;
                true
            }
            Err(error) => {
                tracing::warn!("lost the container's output: {}", crate::error::chain(&error));
                false
            }
        }
    }
}

/// Since 1970; a clock set before that counts as 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
