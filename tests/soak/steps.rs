//! Where lives are held up: a thread of its own listens to their steps, so that nothing that the harness
//! waits for can wait for the harness.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calico_mesos::task::report::steps::Step;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::sync::oneshot;

use crate::fault::Actor;

/// Somebody held up at a step, until this is dropped.
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
        // Killed in the middle of its word: nobody is held up.
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
            // Nobody waits any more: released at once.
            let _ = trap.caught.send(Held { pid: peer.pid(), _stream: stream });
        }
    }
}

fn actor(pid: i32) -> Actor {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) if name.trim_end() == "calico-mesos" => Actor::Cleaner,
        _ => Actor::Executor,
    }
}
