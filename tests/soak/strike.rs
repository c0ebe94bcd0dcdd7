//! One fault, done to one life.

use std::time::Duration;

use calico_mesos::rig::agent::kill_all;
use calico_mesos::task::record::journal::Record;
use calico_mesos::task::report::steps::Step;
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::fault::Fault;
use crate::kit::faults;
use crate::kit::steps::Actor;
use crate::kit::steps::Held;
use crate::kit::wait::eventually;
use crate::life::Lives;
use crate::machine::{Machine, Service};
use crate::plan::{Away, Manner, Plan, Work};
use crate::processes;
use crate::restored;
use crate::world::{sh, task_info};

/// How long a write may take to come.
const WRITE: Duration = Duration::from_secs(8);

/// What was done, in words; `None` when there was nothing to do it to.
pub async fn strike(machine: &mut Machine, plan: &Plan, lives: &mut Lives, held: Held) -> Option<String> {
    let held = match strike_service(machine, plan, held).await {
        Ok(words) => return Some(words),
        Err(held) => held,
    };
    let words = match plan.fault {
        Fault::KillWorkload => {
            let executor = (plan.actor == Actor::Executor).then(|| lives.first.pid());
            kill_workload(machine, &lives.first.id, executor)?
        }
        Fault::LoseAnswer => return lose_answer(machine, plan, lives, held).await,
        Fault::LateWrite => return late_write(machine, plan, lives, held).await,
        Fault::Reboot => {
            reboot(machine, held).await;
            "".into()
        }
        Fault::DestroyContainer => {
            kill_all(held.pid);
            "".into()
        }
        Fault::LaunchTwice => {
            launch_twice(machine, plan, lives, held).await;
            "".into()
        }
        Fault::RestoreEtcd => {
            restored::restore(machine).await;
            drop(held);
            match plan.backup {
                Some(step) => format!("from {}", step.name()),
                None => "from before".into(),
            }
        }
        Fault::TwoGcs => {
            let mut second = machine.cleaner();
            let ended = timeout(Duration::from_millis(1500), second.wait()).await.is_ok();
            drop(held);
            let _ = second.wait().await;
            if ended {
                "the second left".into()
            } else {
                "the second waited".into()
            }
        }
        // SIGKILL for the program that is held up.
        _ => {
            processes::signal(held.pid, Signal::SIGKILL);
            "".into()
        }
    };
    Some(words)
}

/// A fault of a service, or of the program that is held up, which does not depend on the way in; `Err` when the fault
/// is another one.
pub async fn strike_service(machine: &mut Machine, plan: &Plan, held: Held) -> Result<String, Held> {
    let (service, how) = match plan.fault {
        Fault::KillDockerd if plan.coin => {
            machine.take(Service::Dockerd).await;
            (Service::Dockerd, "alone")
        }
        Fault::KillDockerd => {
            machine.take(Service::DockerdAndContainerd).await;
            (Service::DockerdAndContainerd, "with containerd")
        }
        Fault::StopDockerd => {
            machine.take_gently(Service::Dockerd).await;
            (Service::Dockerd, "stopped")
        }
        Fault::KillContainerd => {
            machine.take(Service::Containerd).await;
            (Service::Containerd, "killed")
        }
        Fault::EndEtcd => {
            let service = end(machine, plan, Service::Etcd, Service::FrozenEtcd).await;
            (service, plan.manner.name())
        }
        Fault::RefuseEtcd => {
            machine.take(Service::WayToEtcd).await;
            (Service::WayToEtcd, "refused")
        }
        Fault::SilenceEtcd => {
            machine.silence_etcd().await;
            (Service::WayToEtcd, "silent")
        }
        Fault::EndConsul => {
            let service = end(machine, plan, Service::Consul, Service::FrozenConsul).await;
            (service, plan.manner.name())
        }
        Fault::RestartAgent => {
            machine.take(Service::Agent).await;
            (Service::Agent, "stopped")
        }
        Fault::FillDisk => {
            machine.take(Service::Disk).await;
            (Service::Disk, "full")
        }
        Fault::KillProxy => {
            machine.take(Service::DockerProxy).await;
            (Service::DockerProxy, "killed")
        }
        Fault::RestartProxy => {
            machine.take_gently(Service::DockerProxy).await;
            (Service::DockerProxy, "stopped")
        }
        Fault::Pause => return Ok(pause(machine, plan, held).await),
        _ => return Err(held),
    };
    Ok(outage(machine, plan, held, service, how).await)
}

/// Which of the two has been taken away.
async fn end(machine: &mut Machine, plan: &Plan, dead: Service, frozen: Service) -> Service {
    match plan.manner {
        Manner::Stopped => machine.take_gently(dead).await,
        Manner::Killed => machine.take(dead).await,
        Manner::Hangs => {
            machine.take(frozen).await;
            return frozen;
        }
    }
    dead
}

/// The service is away from now on: for a while, or until the life is over.
async fn outage(machine: &mut Machine, plan: &Plan, held: Held, service: Service, how: &str) -> String {
    drop(held);
    // An agent that is away cannot tell when the life is over.
    let away = match plan.away {
        Away::UntilTheEnd if service == Service::Agent => Away::Moment(Duration::from_secs(3)),
        away => away,
    };
    match away {
        Away::Moment(moment) => {
            machine.wait(moment).await;
            machine.restore().await;
            format!("{how} {:.1} s", moment.as_secs_f32())
        }
        Away::UntilTheEnd => format!("{how} to the end"),
    }
}

/// Kills what lives in the task's namespace, or, where nothing does yet, what its executor has started.
pub fn kill_workload(machine: &Machine, task: &str, executor: Option<i32>) -> Option<String> {
    // Executors that may have several tasks give them names of their own: the journal knows them.
    let paths = &machine.world.config.paths;
    let records = std::fs::read_dir(paths.journal()).into_iter().flatten().flatten();
    let mut records = records.filter_map(|entry| {
        serde_json::from_str::<Record>(&std::fs::read_to_string(entry.path()).ok()?).ok()
    });
    let own = records.find(|record| record.identity.task_id == task)?;
    let mut victims = processes::inside(&paths.task_run(&own.container).join("netns"));
    if let (true, Some(executor)) = (victims.is_empty(), executor) {
        // A command that has not got into its namespace yet.
        victims = processes::children(executor);
    }
    for pid in &victims {
        processes::signal(*pid, Signal::SIGKILL);
    }
    (!victims.is_empty()).then(|| format!("{} killed", victims.len()))
}

/// Lets the life go on to its next write, which after the launch's is that of its end.
async fn to_the_next_write(machine: &Machine, plan: &Plan, lives: &Lives, held: Held) {
    if plan.work == Work::Sleeps && (Step::Claimed..Step::Ended).contains(&plan.step) {
        machine.world.agent.kill(&lives.first.id, Some(plan.grace)).await.unwrap();
    }
    drop(held);
}

async fn lose_answer(machine: &mut Machine, plan: &Plan, lives: &Lives, held: Held) -> Option<String> {
    machine.proxy.lose_write();
    to_the_next_write(machine, plan, lives, held).await;
    if timeout(WRITE, machine.proxy.held()).await.is_err() {
        machine.proxy.cut();
        return None;
    }
    if plan.coin {
        return Some("found out".into());
    }
    // The writer cannot even look what became of it.
    machine.take(Service::WayToEtcd).await;
    if let Away::Moment(moment) = plan.away {
        // How long the outage lasts is what the plan varies.
        sleep(moment).await;
        machine.restore().await;
    }
    Some("and etcd gone".into())
}

async fn late_write(machine: &mut Machine, plan: &Plan, lives: &Lives, held: Held) -> Option<String> {
    let writer = held.pid;
    machine.proxy.hold_write();
    to_the_next_write(machine, plan, lives, held).await;
    if timeout(WRITE, machine.proxy.held()).await.is_err() {
        machine.proxy.cut();
        return None;
    }
    processes::signal(writer, Signal::SIGKILL);
    let after_cleaning = plan.coin;
    if after_cleaning {
        eventually("the writer is dead", async || !processes::is_alive(writer)).await;
        machine.clean().await;
    }
    let delivered = timeout(WRITE, machine.proxy.deliver()).await.is_ok();
    machine.proxy.cut();
    match (delivered, after_cleaning) {
        (false, _) => None,
        (true, true) => Some("after the cleaner".into()),
        (true, false) => Some("before the cleaner".into()),
    }
}

async fn pause(machine: &mut Machine, plan: &Plan, held: Held) -> String {
    let pid = held.pid;
    processes::signal(pid, Signal::SIGSTOP);
    drop(held);
    let moment = match plan.away {
        Away::Moment(moment) => moment,
        Away::UntilTheEnd => Duration::from_secs(5),
    };
    machine.wait(moment).await;
    let (signal, words) = match plan.coin {
        true => (Signal::SIGCONT, "went on"),
        false => (Signal::SIGKILL, "was killed"),
    };
    processes::signal(pid, signal);
    format!("{:.1} s, {words}", moment.as_secs_f32())
}

/// Another instance of the app, ordered while the first is held up.
async fn launch_twice(machine: &mut Machine, plan: &Plan, lives: &mut Lives, held: Held) {
    let mut info = task_info(&lives.app);
    if plan.work != Work::Sleeps {
        // Another task all the same.
        info.name.push_str("-again");
    }
    lives.others.push(machine.launch(info).await);
    machine.wait(plan.pause).await;
    drop(held);
}

/// All processes of agent and Docker die at once; what lies in memory is gone: links, rules, namespaces, mounts, /run.
async fn reboot(machine: &mut Machine, held: Held) {
    machine.world.agent.stop().await.unwrap();
    machine.docker_proxy.kill();
    for _ in 0..3 {
        for pid in processes::ids(machine) {
            processes::signal(pid, Signal::SIGKILL);
        }
        faults::power_off(&mut machine.world.stack.docker);
    }
    drop(held);
    earlier_boot(machine);
    let run = machine.world.config.paths.run.clone();
    let path = run.display();
    sh(&format!(
        "for m in $(awk '{{print $5}}' /proc/self/mountinfo | grep '^{path}/' | sort -r); do umount -l $m; done; rm -rf {path}"
    ));
    sh("for l in $(ip -o link | grep -o 'cali[^:@]*' | grep -v foreign); do ip link del $l; done");
    sh("nft list tables | grep calico-mesos | while read t f n; do nft delete table $f $n; done");
    machine.world.stack.docker.restart().await.unwrap();
    machine.world.agent.restart().await.unwrap();
    machine.docker_proxy.start().await;
}

/// Records of an earlier boot: this kernel's own is the same as before.
fn earlier_boot(machine: &Machine) {
    for entry in std::fs::read_dir(machine.world.config.paths.journal()).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if let Ok(record) = serde_json::from_str::<Record>(&text) {
            let other = uuid::Uuid::new_v4().to_string();
            std::fs::write(entry.path(), text.replace(&record.owner.boot_id, &other)).unwrap();
        }
    }
}
