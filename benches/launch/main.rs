//! How fast a task gets its address: `make bench`.
//!
//! Interleaved on one machine, so that whatever slows it down slows everything alike: a launch through
//! the real executor, and `docker create` + `docker start` of the same container on the bridge and on
//! the host's network. A private etcd on loopback, a private dockerd, local dataplane. Needs root and a
//! network namespace of its own, which `make bench` gives it. Ends with one line a goal, and with exit
//! code 1 when one is missed.

mod crowd;
mod figures;
mod pipes;
mod profile;
mod reference;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use figures::{header, Figure, Goal};
use world::World;

const ROUNDS: usize = 25;
const WARM_UP: usize = 3;
const MEMORY_ROUNDS: usize = 3;
const CROWDS: usize = 2;
/// When an executor has come to rest.
const AT_REST: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Figures {
    launch: Figure,
    command: Figure,
    running: Figure,
    registered: Figure,
    ended: Figure,
    bridge: Figure,
    host: Figure,
    memory: Figure,
    private: Figure,
    private_of_ten: Figure,
    crowd: Figure,
    crowd_memory: Figure,
    docker_run: Figure,
}

fn main() -> ExitCode {
    // `cargo bench` hands over flags that only its own harness knows; `cargo test --benches` runs nothing here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let figures = runtime.block_on(async {
        let begin = Instant::now();
        let world = World::start().await;
        let mut figures = Figures::default();
        for round in 0..WARM_UP + ROUNDS {
            let mut one = Figures::default();
            launch(&world, &mut one).await;
            command(&world, &mut one).await;
            one.bridge.add(reference::create_and_start(&world.stack, "bridge", round).await);
            one.host.add(reference::create_and_start(&world.stack, "host", round).await);
            if round >= WARM_UP {
                figures.take(&one);
            }
        }
        let [docker, command] = ["/bench", "/bench-command"].map(|app| world.profile(app, WARM_UP));
        for _ in 0..MEMORY_ROUNDS {
            memory(&world, &mut figures).await;
            for (_, private) in crowd::executors(&world, 10).await.memory {
                figures.private_of_ten.push(private);
            }
        }
        for _ in 0..CROWDS {
            figures.docker_run.add(crowd::docker_run(&world).await);
            let crowd = crowd::executors(&world, crowd::CROWD).await;
            figures.crowd.add(crowd.took);
            figures.crowd_memory.push(crowd.memory.iter().map(|(pss, _)| pss).sum());
        }
        world.stop().await;
        println!("{}", header());
        figures.print();
        docker.print("a Docker task's launch", true);
        command.print("a command's launch", false);
        println!("\nmeasured in {} s\n", begin.elapsed().as_secs());
        figures
    });
    let goals = figures.goals();
    goals.iter().for_each(|goal| println!("{goal}"));
    if goals.iter().all(Goal::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One task from LAUNCH to its last update.
async fn launch(world: &World, figures: &mut Figures) {
    let mut task = world.launch().await;
    let first_instruction = task.first_instruction().await;
    let handed_over = task.handed_over(world);
    figures.launch.add(first_instruction.duration_since(handed_over));
    figures.running.add(task.running(world).await.duration_since(task.launched.at));
    figures.registered.add(task.registered(world).duration_since(task.launched.at));

    let wait = world.wait(&task.container_name()).await;
    task.let_end().await;
    let terminal = task.terminal(world).await;
    let answered = wait.await.expect("the waiting task does not panic");
    figures.ended.add(terminal.saturating_duration_since(answered));
    world.clean_up(task).await;
}

/// One command without a container, from LAUNCH to its first instruction.
async fn command(world: &World, figures: &mut Figures) {
    let mut task = world.launch_command().await;
    let first_instruction = task.first_instruction().await;
    figures.command.add(first_instruction.duration_since(task.launched_by_event(world)));
    task.let_end().await;
    task.terminal(world).await;
    world.over(task).await;
}

/// Memory of one executor alone.
async fn memory(world: &World, figures: &mut Figures) {
    let mut task = world.launch().await;
    task.first_instruction().await;
    task.running(world).await;
    tokio::time::sleep(AT_REST).await;
    let (pss, private) = world::memory(task.launched.executor_pid);
    figures.memory.push(pss);
    figures.private.push(private);
    task.let_end().await;
    task.terminal(world).await;
    world.clean_up(task).await;
}

impl Figures {
    fn take(&mut self, one: &Self) {
        let pairs = [
            (&mut self.launch, &one.launch),
            (&mut self.command, &one.command),
            (&mut self.running, &one.running),
            (&mut self.registered, &one.registered),
            (&mut self.ended, &one.ended),
            (&mut self.bridge, &one.bridge),
            (&mut self.host, &one.host),
        ];
        for (all, one) in pairs {
            all.push(one.median());
        }
    }

    fn print(&self) {
        println!("{}", self.launch.row("LAUNCH to the task's first instruction, with address", "ms"));
        println!("{}", self.command.row("LAUNCH to a command's first instruction, with address", "ms"));
        println!("{}", self.bridge.row("docker create + start, network bridge", "ms"));
        println!("{}", self.host.row("docker create + start, network host", "ms"));
        println!("{}", self.running.row("\"Launching\" to TASK_RUNNING at the agent", "ms"));
        println!("{}", self.registered.row("executor started to its registration at the agent", "ms"));
        println!("{}", self.ended.row("Docker's wait answer to the terminal update at the agent", "ms"));
        println!("{}", self.memory.row("executor's memory 10 s after RUNNING (PSS)", "MB"));
        println!("{}", self.private.row("  of it private", "MB"));
        println!("{}", self.private_of_ten.row("  of it private while ten executors live", "MB"));
        println!("{}", self.crowd.row("100 executors at once, to the last TASK_RUNNING", "ms"));
        println!("{}", self.docker_run.row("100 docker run -d at once, network host, to the last", "ms"));
        println!("{}", self.crowd_memory.row("100 executors' memory 10 s later (sum of PSS)", "MB"));
    }

    fn goals(&self) -> [Goal; 10] {
        let ratio = |of: &Figure, to: &Figure| of.median() / to.median();
        [
            Goal::new("launch-to-bridge-ratio", ratio(&self.launch, &self.bridge), 0.5),
            Goal::new("launch-to-host-ratio", ratio(&self.launch, &self.host), 1.05),
            Goal::new("launching-to-running-ms", self.running.median(), 150.0),
            Goal::new("command-to-first-instruction-ms", self.command.median(), 25.0),
            Goal::new("exit-to-terminal-ms", self.ended.median(), 25.0),
            Goal::new("executor-memory-mb", self.memory.median(), 8.0),
            // What each further executor costs: the program's own pages are shared.
            Goal::new("executor-private-memory-of-ten-mb", self.private_of_ten.median(), 1.0),
            Goal::new("start-to-registration-ms", self.registered.median(), 10.0),
            Goal::new("crowd-to-docker-run-ratio", ratio(&self.crowd, &self.docker_run), 1.5),
            Goal::new("crowd-memory-mb", self.crowd_memory.median(), 400.0),
        ]
    }
}
