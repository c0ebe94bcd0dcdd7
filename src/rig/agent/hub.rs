//! The one task that owns the agent's state: commands, messages, exits and timers come in here.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::api::{self, Asked, Socket};
use super::executor::{AgentExecutor, ExecutorLink, ExecutorPhase};
use super::executor_exits::Destruction;
use super::history::{Direction, HistoryRecord, Shared};
use super::ports;
use super::recovery::{Recovery, RecoveryStep};
use super::to_executor::AgentMessage;
use super::{AgentError, AgentOptions, Fetched, Launched};
use crate::mesos::libprocess::link;
use crate::mesos::libprocess::server::Server;
use crate::mesos::libprocess::{framing, Incoming, Upid};
use crate::mesos::messages::{
    ExecutorInfo, RegisterExecutorMessage, ReregisterExecutorMessage, ShutdownExecutorMessage,
    StatusUpdateMessage, TaskInfo, Wire,
};

pub(super) const ACTOR: &str = "slave(1)";

type Reply<T> = oneshot::Sender<Result<T, AgentError>>;

pub(super) enum HubCommand {
    Launch { task: Box<TaskInfo>, fetched: Option<Fetched>, reply: Reply<Launched> },
    LaunchGroup { executor: Box<ExecutorInfo>, tasks: Vec<TaskInfo>, reply: Reply<Launched> },
    LaunchOn { executor: String, task: Box<TaskInfo>, reply: Reply<()> },
    Kill { task: String, grace: Option<Duration>, reply: Reply<()> },
    Shutdown { task: String, reply: Reply<()> },
    Destroy { task: String, why: Destruction, reply: Reply<()> },
    Message { task: String, data: Vec<u8>, reply: Reply<()> },
    Cut { task: String, reply: Reply<()> },
    Teardown { reply: oneshot::Sender<()> },
    Stop { reply: oneshot::Sender<()> },
    Restart { reply: Reply<()> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    Registration,
    Reregistration,
    ShutdownGrace,
}

pub(super) enum Internal {
    Exited(String, Option<ExitStatus>),
    /// With the number of the recovery in which it was set.
    Alarm(String, Alarm, u32),
    /// A call over HTTP.
    Asked(Box<Asked>),
    /// The end of the recovery with this number.
    Recovery(u32, RecoveryStep),
}

pub(super) struct Hub {
    pub(super) options: Arc<AgentOptions>,
    pub(super) shared: Arc<Shared>,
    pub(super) pid: Upid,
    /// `None` while the agent is down.
    pub(super) server: Option<Server>,
    pub(super) socket: Option<Socket>,
    pub(super) recovery: Recovery,
    /// Counts the recoveries.
    pub(super) recoveries: u32,
    pub(super) restarting: Option<Reply<()>>,
    pub(super) executors: BTreeMap<String, AgentExecutor>,
    /// The framework is gone: updates are taken no more.
    pub(super) torn_down: bool,
    pub(super) internal: mpsc::UnboundedSender<Internal>,
    pub(super) messages: mpsc::UnboundedSender<Incoming>,
    inbox: Option<(mpsc::UnboundedReceiver<Internal>, mpsc::UnboundedReceiver<Incoming>)>,
}

impl Hub {
    pub async fn start(options: Arc<AgentOptions>, shared: Arc<Shared>) -> Result<Self, AgentError> {
        let listener = match options.port {
            0 => listen_anywhere(options.ip).await?,
            port => listen(SocketAddr::new(options.ip, port)).await?,
        };
        let address = listener.local_addr().map_err(|source| AgentError::Listen {
            address: SocketAddr::new(options.ip, options.port),
            source,
        })?;
        let (messages, incoming) = mpsc::unbounded_channel();
        let (internal, events) = mpsc::unbounded_channel();
        let server = Server::with_api(listener, ACTOR, messages.clone(), api::over_tcp(internal.clone()));
        let socket = open_socket(&options, &internal)?;
        Ok(Self {
            options,
            shared,
            pid: Upid::new(ACTOR, address),
            server: Some(server),
            socket,
            recovery: Recovery::Done,
            recoveries: 0,
            restarting: None,
            executors: BTreeMap::new(),
            torn_down: false,
            internal,
            messages,
            inbox: Some((events, incoming)),
        })
    }

    pub fn pid(&self) -> &Upid {
        &self.pid
    }

    /// Ends with the last handle, and with it its executors.
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<HubCommand>) {
        let Some((mut internal, mut incoming)) = self.inbox.take() else { return };
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => break,
                },
                Some(event) = internal.recv() => self.event(event).await,
                Some(message) = incoming.recv() => {
                    // What a dead agent had in its buffers is lost with it.
                    if self.server.is_some() {
                        self.receive(message);
                    }
                }
            }
        }
    }

    async fn command(&mut self, command: HubCommand) {
        // The caller may have stopped waiting: a reply without a receiver is not an error.
        match command {
            HubCommand::Launch { task, fetched, reply } => {
                drop(reply.send(self.launch(*task, fetched.as_ref())))
            }
            HubCommand::LaunchGroup { executor, tasks, reply } => {
                drop(reply.send(self.launch_group(*executor, tasks)));
            }
            HubCommand::LaunchOn { executor, task, reply } => {
                drop(reply.send(self.launch_on(&executor, *task)))
            }
            HubCommand::Kill { task, grace, reply } => drop(reply.send(self.kill(&task, grace))),
            HubCommand::Shutdown { task, reply } => drop(reply.send(self.shutdown(&task))),
            HubCommand::Destroy { task, why, reply } => {
                drop(reply.send(self.destroy_executor_of(&task, why)))
            }
            HubCommand::Message { task, data, reply } => drop(reply.send(self.message(&task, data))),
            HubCommand::Cut { task, reply } => drop(reply.send(self.cut(&task))),
            HubCommand::Teardown { reply } => {
                self.tear_down();
                let _ = reply.send(());
            }
            HubCommand::Stop { reply } => {
                self.stop().await;
                let _ = reply.send(());
            }
            HubCommand::Restart { reply } => self.restart(reply).await,
        }
    }

    async fn event(&mut self, event: Internal) {
        match event {
            // What a dead agent had been asked is lost with it.
            Internal::Asked(asked) if self.server.is_some() => self.asked(*asked),
            Internal::Asked(_) => {}
            Internal::Recovery(number, step) if number == self.recoveries => self.recovery_step(step).await,
            Internal::Recovery(..) => {}
            Internal::Exited(container, status) => self.exited(&container, status),
            // The agent has gone away and come back since: the window is another one.
            Internal::Alarm(_, Alarm::Reregistration, number) if number != self.recoveries => {}
            Internal::Alarm(container, alarm, _) => self.alarm(&container, alarm),
        }
    }

    fn receive(&mut self, message: Incoming) {
        self.shared.record(HistoryRecord {
            at: Instant::now(),
            direction: Direction::FromExecutor,
            name: message.name.clone(),
            body: message.body.clone(),
            wire: Vec::new(),
        });
        let Some(from) = message.from.clone() else {
            self.shared.problem(format!("{} without a usable sender", message.name));
            return;
        };
        let handled = if let Some(body) = message.decode::<RegisterExecutorMessage>() {
            body.map(|body| self.register(&from, &body))
        } else if let Some(body) = message.decode::<StatusUpdateMessage>() {
            body.map(|body| self.status_update(body))
        } else if let Some(body) = message.decode::<ReregisterExecutorMessage>() {
            body.map(|body| self.reregister(&from, body))
        } else {
            self.shared.problem(format!("unknown message {} from {from}", message.name));
            Ok(())
        };
        if let Err(error) = handled {
            self.shared.problem(format!("failed to deserialize {} from {from}: {error}", message.name));
        }
    }

    fn register(&mut self, from: &Upid, message: &RegisterExecutorMessage) {
        let id = message.executor_id.value.as_str();
        let known = self.executors.get_mut(id);
        let expected = known.filter(|executor| executor.phase == ExecutorPhase::Registering);
        let Some(executor) = expected.filter(|_| message.framework_id.value == self.options.framework_id)
        else {
            self.shared.problem(format!("unexpected registration of executor '{id}' from {from}"));
            self.send_to(from, &ShutdownExecutorMessage::default());
            return;
        };
        executor.phase = ExecutorPhase::Running;
        let queued = std::mem::take(&mut executor.queued);
        self.attach(id, from);
        if queued.is_empty() {
            // All its tasks were killed meanwhile.
            self.shut_down(id);
            return;
        }
        self.send_to_executor(id, AgentMessage::Registered);
        for queued in queued {
            self.hand_over(id, queued);
        }
    }

    /// Remembers where an executor listens, on disk too, and opens the link to it.
    pub(super) fn attach(&mut self, executor: &str, at: &Upid) {
        let Some(executor) = self.executors.get_mut(executor) else { return };
        let (closed, _) = oneshot::channel();
        executor.link = Some(ExecutorLink::Actor(link::PeerLink::open(at.address, closed)));
        executor.pid = Some(at.clone());
        if self.options.checkpoint {
            let path = executor.meta.join("pids/libprocess.pid");
            self.checkpoint(&path, at.to_string().as_bytes());
        }
    }

    pub(super) fn checkpoint(&self, path: &PathBuf, content: &[u8]) {
        if let Err(error) = std::fs::write(path, content) {
            self.shared.problem(format!("cannot checkpoint {}: {error}", path.display()));
        }
    }

    /// A message of version 0 over the executor's link.
    pub(super) fn send<M: Wire>(&self, executor: &str, message: &M) {
        let Some(executor) = self.executors.get(executor) else { return };
        if let (Some(ExecutorLink::Actor(link)), Some(pid)) = (&executor.link, &executor.pid) {
            link.send(self.encode(pid, message));
        }
    }

    /// Sends a message to a peer without a link.
    pub(super) fn send_to<M: Wire>(&self, to: &Upid, message: &M) {
        let (address, request) = (to.address, self.encode(to, message));
        tokio::spawn(async move {
            if let Err(error) = link::send_once(address, &request).await {
                tracing::debug!(%address, %error, "a message is lost");
            }
        });
    }

    pub(super) fn encode<M: Wire>(&self, to: &Upid, message: &M) -> Vec<u8> {
        let body = message.encode_to_vec();
        let wire = framing::encode(&self.pid, to, M::NAME, &body);
        self.shared.record(HistoryRecord {
            at: Instant::now(),
            direction: Direction::ToExecutor,
            name: M::NAME.to_owned(),
            body,
            wire: wire.clone(),
        });
        wire
    }
}

impl Drop for Hub {
    /// However the agent ends, also with its runtime: no executor is left without one.
    fn drop(&mut self) {
        self.executors.values().for_each(AgentExecutor::terminate);
    }
}

pub(super) fn open_socket(
    options: &AgentOptions,
    hub: &mpsc::UnboundedSender<Internal>,
) -> Result<Option<Socket>, AgentError> {
    let open = |path: &PathBuf| {
        Socket::start(path, hub.clone()).map_err(|source| AgentError::Socket { path: path.clone(), source })
    };
    options.domain_socket.as_ref().map(open).transpose()
}

/// Below the ephemeral ports: no outgoing connection may take ours during a restart.
///
/// A port that was free a moment ago may not be: a program that another thread starts holds everything that was open
/// here, until it runs. Then it is the next one's turn.
async fn listen_anywhere(ip: IpAddr) -> Result<TcpListener, AgentError> {
    const TRIES: usize = 20;
    let mut tried = 1;
    loop {
        match listen(SocketAddr::new(ip, ports::own())).await {
            Err(AgentError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && tried < TRIES =>
            {
                tried += 1;
            }
            result => return result,
        }
    }
}

pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, AgentError> {
    TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, source })
}
