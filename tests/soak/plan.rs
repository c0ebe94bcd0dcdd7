//! One life, thought out beforehand: everything follows from its seed.

use std::time::Duration;

use calico_mesos::task::report::steps::Step;
use fastrand::Rng;
use serde_json::{json, Value};

use crate::fault::{is_way_back, Fault};
use crate::kit::steps::Actor;
use crate::world::{app, with, EXECUTOR};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    DropIn,
    Command,
    CustomDocker,
    /// The Docker API proxy: no executor.
    Proxied,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    Auto,
    Fixed,
    Dual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Until it is killed.
    Sleeps,
    Exits,
    Fails,
}

/// How long a service is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    Moment(Duration),
    /// Until the executor is gone.
    UntilTheEnd,
}

/// How a service ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Stopped,
    Killed,
    /// It is there and does nothing.
    Hangs,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub fault: Fault,
    pub step: Step,
    pub actor: Actor,
    /// Where the owner dies when a cleaner is to be struck.
    pub dies: Step,
    pub away: Away,
    pub manner: Manner,
    /// Decides where a fault has two kinds.
    pub coin: bool,
    /// Between two things that the harness does.
    pub pause: Duration,
    pub way: Way,
    pub address: Address,
    pub services: bool,
    pub ports: bool,
    pub work: Work,
    pub grace: Duration,
    /// A task without Calico beside it.
    pub companion: Option<Way>,
    /// Which of the pool's addresses a fixed one is.
    pub offset: u8,
    /// At which step of the owner etcd is backed up, if it will be restored; none: before the launch.
    pub backup: Option<Step>,
}

impl Manner {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Hangs => "hangs",
        }
    }
}

/// A life's seed, with the fault in its last two digits.
pub fn seed(rng: &mut Rng, fault: Fault) -> u64 {
    let index = Fault::ALL.iter().position(|other| *other == fault).unwrap() as u64;
    rng.u64(..u64::MAX / 100) * 100 + index
}

impl Plan {
    pub fn of(seed: u64) -> Option<Self> {
        let fault = *Fault::ALL.get((seed % 100) as usize)?;
        let mut rng = Rng::with_seed(seed);
        let moments: Vec<(Step, Actor)> = [Actor::Executor, Actor::Cleaner, Actor::Proxy]
            .into_iter()
            .flat_map(|actor| Step::ALL.iter().map(move |step| (*step, actor)))
            .filter(|(step, actor)| *actor != Actor::Cleaner || is_way_back(*step))
            .filter(|(step, actor)| fault.fits(*step, *actor))
            .collect();
        let launch: Vec<Step> = Step::ALL.iter().copied().filter(|step| !is_way_back(*step)).collect();
        let (step, actor) = *rng.choice(&moments)?;
        // Else there is nothing to write, or to kill.
        let needs_a_whole_life = matches!(fault, Fault::LoseAnswer | Fault::LateWrite | Fault::KillWorkload);
        let custom = [Way::Command, Way::CustomDocker];
        let all = [Way::DropIn, Way::Command, Way::CustomDocker];
        let moment = Away::Moment(Duration::from_millis(rng.u64(100..2500)));
        let mut plan = Self {
            seed,
            fault,
            step,
            actor,
            // As often as not while it runs.
            dies: if rng.bool() || needs_a_whole_life { Step::Running } else { *rng.choice(&launch)? },
            away: if rng.u8(..4) == 0 { Away::UntilTheEnd } else { moment },
            manner: *rng.choice(&[Manner::Stopped, Manner::Killed, Manner::Hangs])?,
            coin: rng.bool(),
            pause: Duration::from_millis(rng.u64(..1000)),
            way: *rng.choice(if fault == Fault::DestroyContainer { &custom[..] } else { &all[..] })?,
            address: *rng.choice(&[Address::Auto, Address::Fixed, Address::Dual])?,
            services: rng.bool() || fault == Fault::EndConsul,
            ports: rng.bool(),
            // One that ends by itself could be over before it is killed.
            work: match fault {
                Fault::KillWorkload => Work::Sleeps,
                _ => *rng.choice(&[Work::Sleeps, Work::Sleeps, Work::Exits, Work::Fails])?,
            },
            grace: Duration::from_secs(rng.u64(..2)),
            companion: (rng.u8(..4) == 0).then(|| if rng.bool() { Way::DropIn } else { Way::Command }),
            offset: rng.u8(20..40),
            backup: None,
        };
        if actor == Actor::Proxy {
            (plan.way, plan.companion) = (Way::Proxied, None);
        }
        if fault == Fault::RestoreEtcd {
            let last = if actor == Actor::Executor { step } else { plan.dies };
            let earlier: Vec<Step> =
                Step::ALL.iter().copied().filter(|earlier| *earlier < last && is_in_line(*earlier)).collect();
            let place = rng.usize(..=earlier.len());
            plan.backup = earlier.get(place).copied();
        }
        Some(plan)
    }

    /// What the workload does, for a shell.
    fn line(&self) -> &'static str {
        match self.work {
            Work::Sleeps => "exec sleep 1000",
            Work::Exits => "sleep 0.3; exit 0",
            Work::Fails => "sleep 0.3; exit 3",
        }
    }

    /// CALICO_IP.
    fn wanted<'a>(&self, fixed: &'a str) -> &'a str {
        match self.address {
            Address::Auto => "auto",
            Address::Fixed => fixed,
            Address::Dual => "auto,auto6",
        }
    }

    /// What `docker run` is called with.
    pub fn container(&self, name: &str, fixed: &str) -> Vec<String> {
        let policy = match self.work {
            Work::Sleeps => "always",
            Work::Exits => "no",
            Work::Fails => "on-failure:2",
        };
        let wanted = format!("CALICO_IP={}", self.wanted(fixed));
        let mut words = vec!["run", "-d", "--name", name, "--restart", policy, "-e", &wanted];
        words.extend(["-e", "CALICO_PROFILE=dev"]);
        if self.services {
            words.extend(["-e", "CALICO_SERVICE=soak", "-e", "SERVICE_PORT=80,https:443"]);
        }
        if self.ports {
            words.extend(["-p", "80"]);
        }
        words.extend(["busybox", "sh", "-c", self.line()]);
        words.into_iter().map(str::to_owned).collect()
    }

    /// The app as Marathon has it.
    pub fn app(&self, fixed: &str) -> Value {
        let line = self.line();
        let mut env = json!({"CALICO_IP": self.wanted(fixed), "CALICO_PROFILE": "dev"});
        if self.services {
            env = with(env, "SERVICE_PORT", "80,https:443");
        }
        let mut app = app_of("/soak", self.way, line, env);
        if !self.ports {
            app["portDefinitions"] = json!([]);
        }
        app
    }

    pub fn describe(&self) -> String {
        let way = match self.way {
            Way::DropIn => "drop-in",
            Way::Command => "command",
            Way::CustomDocker => "custom docker",
            Way::Proxied => "proxy",
        };
        let address = match self.address {
            Address::Auto => "",
            Address::Fixed => " fixed",
            Address::Dual => " dual",
        };
        let work = match self.work {
            Work::Sleeps => "",
            Work::Exits => " exits",
            Work::Fails => " fails",
        };
        let flag = |on: bool, text: &'static str| if on { text } else { "" };
        format!(
            "{way}{address}{work}{}{}{}",
            flag(self.services, " consul"),
            flag(self.ports, " ports"),
            flag(self.companion.is_some(), " +plain")
        )
    }

    /// The step, and, when a cleaner is struck there, that at which the owner had died.
    pub fn moment(&self) -> String {
        match self.actor {
            Actor::Executor | Actor::Proxy => self.step.name().to_owned(),
            Actor::Cleaner => format!("{} by cleaner ({})", self.step.name(), self.dies.name()),
        }
    }
}

/// Steps that no other one of the same life overtakes: those of a launch pass side by side.
fn is_in_line(step: Step) -> bool {
    step <= Step::Listening || step == Step::Published || step == Step::Attached || step >= Step::Running
}

/// An app in this way in. Marathon's path executors take no container: the image is named by a variable.
pub fn app_of(id: &str, way: Way, line: &str, env: Value) -> Value {
    let mut app = app(id, line, env);
    if way == Way::DropIn {
        return app;
    }
    app.as_object_mut().unwrap().remove("container");
    let quoted = format!("sh -c '{line}'");
    app["cmd"] = json!(quoted);
    app["executor"] = json!(EXECUTOR);
    if way == Way::CustomDocker {
        app["env"]["CALICO_DOCKER_IMAGE"] = json!("busybox");
    }
    app
}
