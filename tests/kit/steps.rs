//! Where lives are held up: a thread of its own listens to their steps (`paths.steps`), so that nothing that a test
//! waits for can wait for the test.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calico_mesos::host::processes::command_line;
use calico_mesos::task::report::steps::Step;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::sync::oneshot;

/// The program that comes to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The task's own.
    Executor,
    /// What cleans up after a dead one.
    Cleaner,
    /// The Docker API proxy.
    Proxy,
}

/// A program held up at a step, until this is dropped.
pub struct Held {
    pub pid: i32,
    _stream: UnixStream,
}

struct Trap {
    task: String,
    step: Step,
    actor: Actor,
    caught: oneshot::Sender<Held>,
}

#[derive(Clone, Default)]
pub struct Steps {
    trap: Arc<Mutex<Option<Trap>>>,
    passed: Arc<Mutex<Vec<String>>>,
}

impl Steps {
    /// Listens as long as the test runs.
    pub fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let steps = Self::default();
        let own = steps.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                own.heard(stream);
            }
        });
        steps
    }

    /// Holds up whoever is the first to come to this step. Another trap that is set is forgotten.
    pub fn set(&self, task: &str, step: Step, actor: Actor) -> oneshot::Receiver<Held> {
        let (caught, receiver) = oneshot::channel();
        *self.trap.lock().unwrap() = Some(Trap { task: task.to_owned(), step, actor, caught });
        receiver
    }

    pub fn clear(&self) {
        *self.trap.lock().unwrap() = None;
    }

    /// Every step so far since the last call, `<pid> <task> <step>`.
    pub fn passed(&self) -> Vec<String> {
        std::mem::take(&mut self.passed.lock().unwrap())
    }

    fn heard(&self, stream: UnixStream) {
        let Ok(peer) = getsockopt(&stream, PeerCredentials) else { return };
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut line = String::new();
        // Killed in the middle of its line: nothing is held up.
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            return;
        }
        let Some((task, step)) = line.trim_end().split_once(' ') else { return };
        let actor = actor(peer.pid());
        self.passed.lock().unwrap().push(format!("{} {actor:?} {task} {step}", peer.pid()));
        let mut trap = self.trap.lock().unwrap();
        let matches = |trap: &Trap| trap.task == task && trap.step.name() == step && trap.actor == actor;
        if trap.as_ref().is_some_and(matches) {
            let trap = trap.take().unwrap();
            // Where the test waits no more, it is released at once.
            let _ = trap.caught.send(Held { pid: peer.pid(), _stream: stream });
        }
    }
}

fn actor(pid: i32) -> Actor {
    let words = command_line(pid).unwrap_or_default();
    let is = |verb: &str| words.iter().any(|word| word == verb);
    match words.first().map(|program| program.ends_with("calico-mesos")) {
        Some(true) if is("proxy") => Actor::Proxy,
        Some(true) => Actor::Cleaner,
        _ => Actor::Executor,
    }
}
