//! Carries out what the state machine decides: the link, the timer, the events, those who wait.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::handle::{Drains, DriverCommand};
use super::state::{DriverEffect, DriverInput, DriverState};
use super::Event;
use crate::mesos::libprocess::link::{self, PeerLink};
use crate::mesos::libprocess::server::Server;
use crate::mesos::libprocess::{framing, Incoming, Upid};

/// Where requests go.
enum Out {
    Link(PeerLink, oneshot::Receiver<io::Error>),
    /// The link has ended: a connection a message, as the agent may be there all the same.
    Single(mpsc::UnboundedSender<Vec<u8>>),
}

/// Lives until the last handle is gone.
pub(super) struct DriverShell {
    state: DriverState,
    out: Out,
    agent: Upid,
    pid: Upid,
    events: mpsc::UnboundedSender<Event>,
    recovery_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    drains: Drains,
    _server: Server,
}

impl DriverShell {
    /// Registers at `agent` over `link`, then runs in the background.
    pub fn start(
        state: DriverState,
        listener: TcpListener,
        link: TcpStream,
        (agent, pid): (Upid, Upid),
        recovery_timeout: Duration,
    ) -> (mpsc::UnboundedSender<DriverCommand>, mpsc::UnboundedReceiver<Event>) {
        let (messages, incoming) = mpsc::unbounded_channel();
        let (closed, end) = oneshot::channel();
        let (commands, queue) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::unbounded_channel();
        let mut shell = Self {
            out: Out::Link(PeerLink::over(link, closed), end),
            timer: None,
            drains: Drains::default(),
            _server: Server::start(listener, &pid.actor, messages),
            state,
            agent,
            pid,
            events,
            recovery_timeout,
        };
        let register = shell.state.register();
        shell.perform(register);
        tokio::spawn(shell.run(queue, incoming));
        (commands, receiver)
    }

    async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<DriverCommand>,
        mut incoming: mpsc::UnboundedReceiver<Incoming>,
    ) {
        loop {
            let input = tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(DriverCommand::Update(update)) => DriverInput::Update(update),
                    Some(DriverCommand::Drained(answer)) => {
                        self.drains.push(answer);
                        self.drains.answer(self.state.drained());
                        continue;
                    }
                    None => return,
                },
                Some(message) = incoming.recv() => DriverInput::Message(message),
                error = ended(&mut self.out) => {
                    tracing::debug!(%error, agent = %self.agent, "the link to the agent has ended");
                    self.out = single(self.agent.address);
                    DriverInput::LinkEnded
                }
                () = expired(&mut self.timer) => {
                    self.timer = None;
                    DriverInput::RecoveryTimeout
                }
            };
            let effects = self.state.handle(input);
            self.perform(effects);
            self.drains.answer(self.state.drained());
        }
    }

    fn perform(&mut self, effects: Vec<DriverEffect>) {
        for effect in effects {
            match effect {
                DriverEffect::Send { name, body } => {
                    let request = framing::encode(&self.pid, &self.agent, name, &body);
                    match &self.out {
                        Out::Link(link, _) => link.send(request),
                        // The receiver lives as long as this sender.
                        Out::Single(queue) => drop(queue.send(request)),
                    }
                }
                DriverEffect::Relink(agent) => {
                    let (closed, end) = oneshot::channel();
                    self.out = Out::Link(PeerLink::open(agent.address, closed), end);
                    self.agent = agent;
                }
                DriverEffect::StartTimer => {
                    self.timer = Some(Box::pin(tokio::time::sleep(self.recovery_timeout)))
                }
                DriverEffect::StopTimer => self.timer = None,
                // Without a listener nothing can act on an event; the driver ends with its handles.
                DriverEffect::Emit(event) => drop(self.events.send(event)),
            }
        }
    }
}

async fn ended(out: &mut Out) -> io::Error {
    match out {
        Out::Link(_, end) => end.await.unwrap_or_else(|_| io::ErrorKind::UnexpectedEof.into()),
        Out::Single(_) => std::future::pending().await,
    }
}

async fn expired(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

fn single(agent: SocketAddr) -> Out {
    let (queue, mut requests) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            if let Err(error) = link::send_once(agent, &request).await {
                tracing::warn!(%agent, %error, "cannot send to the agent; kept for its next reconnection");
            }
        }
    });
    Out::Single(queue)
}
