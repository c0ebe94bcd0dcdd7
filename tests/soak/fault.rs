//! What can go wrong, each by name.

use calico_mesos::task::report::steps::Step;

use crate::kit::steps::Actor;

/// Names each fault once; whoever goes through them all cannot forget a new one.
macro_rules! faults {
    ($($(#[$doc:meta])+ $name:ident = $words:literal,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])+ $name,)+
        }

        impl Fault {
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

faults! {
    /// SIGKILL.
    KillExecutor = "kill executor",
    /// SIGKILL for everything that lives in the task's namespace, a waiting init too.
    KillWorkload = "kill workload",
    /// SIGKILL for dockerd and containerd, or for dockerd alone.
    KillDockerd = "kill dockerd",
    /// SIGTERM.
    StopDockerd = "stop dockerd",
    /// SIGKILL; dockerd lives on.
    KillContainerd = "kill containerd",
    /// SIGTERM, SIGKILL, or it hangs.
    EndEtcd = "end etcd",
    /// Nobody gets a connection any more.
    RefuseEtcd = "refuse etcd",
    /// Connections stand, and nothing comes through either way.
    SilenceEtcd = "silence etcd",
    /// The next write is committed, but its writer never hears of it.
    LoseAnswer = "lose answer",
    /// The next write is committed when its writer is dead.
    LateWrite = "late write",
    /// SIGTERM, SIGKILL, or it hangs.
    EndConsul = "end consul",
    /// The agent dies and comes back.
    RestartAgent = "restart agent",
    /// All processes die, what is not on a disk is gone.
    Reboot = "reboot",
    /// No byte more for the journal.
    FillDisk = "fill disk",
    /// SIGSTOP, and then SIGCONT or SIGKILL.
    Pause = "pause",
    /// The agent freezes and kills the executor's cgroup.
    DestroyContainer = "destroy cgroup",
    /// The same app once more, at the same moment.
    LaunchTwice = "launch twice",
    /// SIGKILL for a cleaner at work.
    KillGc = "kill gc",
    /// A second cleaner beside one that is at work, or beside an executor that cleans up itself.
    TwoGcs = "two gcs",
    /// etcd comes back with what it held at an earlier step.
    RestoreEtcd = "restore etcd",
    /// SIGKILL for the Docker API proxy, and another one a moment later.
    KillProxy = "kill proxy",
    /// The same with SIGTERM.
    RestartProxy = "restart proxy",
}

impl Fault {
    /// Whether it means anything at this step of this actor.
    pub fn fits(self, step: Step, actor: Actor) -> bool {
        if actor == Actor::Proxy {
            return self.fits_proxy(step);
        }
        let executor = actor == Actor::Executor;
        match self {
            Self::KillExecutor | Self::RestartAgent | Self::DestroyContainer | Self::LaunchTwice => executor,
            // Before that nothing of it lives, after that nothing any more.
            Self::KillWorkload if executor => (Step::Waiting..Step::Ended).contains(&step),
            Self::KillWorkload => (Step::Ended..Step::Stopped).contains(&step),
            // A write has to come after it.
            Self::LoseAnswer | Self::LateWrite => step < Step::Released,
            Self::KillGc => !executor,
            Self::TwoGcs => is_way_back(step),
            Self::KillProxy | Self::RestartProxy => false,
            _ => true,
        }
    }

    /// The same for a container of the proxy's, which Docker starts.
    fn fits_proxy(self, step: Step) -> bool {
        match self {
            Self::KillProxy
            | Self::RestartProxy
            | Self::KillDockerd
            | Self::StopDockerd
            | Self::KillContainerd
            | Self::EndEtcd
            | Self::RefuseEtcd
            | Self::SilenceEtcd
            | Self::EndConsul
            | Self::Pause => step != Step::Started,
            Self::KillWorkload => matches!(step, Step::Waiting | Step::Opened | Step::Running),
            _ => false,
        }
    }
}

/// Steps of the way back are those of a cleaner too.
pub fn is_way_back(step: Step) -> bool {
    step >= Step::Ended
}
