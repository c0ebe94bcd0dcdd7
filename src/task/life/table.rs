//! The jobs of a life's set-up, and what each of them needs.

use crate::task::request::{Task, Work};

/// What a life is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeKind {
    /// A container that stock Mesos could run just as well.
    PlainContainer,
    /// A command that stock Mesos could run just as well.
    PlainCommand,
    /// A container with an interface of Calico's.
    CalicoContainer,
    /// A command with one. It is this executor's own child, so that it may stand at the gate while the datastore is
    /// read; Docker would hold a lock on its container meanwhile.
    CalicoCommand,
    /// A container with one, which others make and start, as clients of the Docker API do.
    Adopted,
    /// The same container started again, while namespace, endpoint and address of its life before are held.
    Again,
}

impl From<&Task> for LifeKind {
    fn from(task: &Task) -> Self {
        match (task, task.work()) {
            (Task::Plain(_), Work::Docker(_) | Work::Foreign(_)) => Self::PlainContainer,
            (Task::Plain(_), Work::Command(_)) => Self::PlainCommand,
            (Task::Calico(_), Work::Docker(_)) => Self::CalicoContainer,
            (Task::Calico(_), Work::Command(_)) => Self::CalicoCommand,
            (Task::Calico(_), Work::Foreign(_)) => Self::Adopted,
        }
    }
}

impl LifeKind {
    /// It has a record in the journal, a gate, an address and names.
    pub(super) fn is_networked(self) -> bool {
        !matches!(self, Self::PlainContainer | Self::PlainCommand)
    }

    /// Others start and stop it.
    pub(super) fn is_adopted(self) -> bool {
        matches!(self, Self::Adopted | Self::Again)
    }

    /// Whether this executor ends the grace period. Docker does it for a container.
    pub(super) fn ends_grace_itself(self) -> bool {
        matches!(self, Self::PlainCommand | Self::CalicoCommand)
    }
}

/// A part of the set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Holds the request against the configuration, and writes the journal's record.
    Record,
    /// Listens at the gate.
    Listen,
    /// Makes the record safe from a loss of power.
    Sync,
    /// Reads the datastore, and chooses addresses.
    Read,
    /// Makes the namespace and the veth pair, or those of the life before as they were.
    Interface,
    /// Makes the workload ready to be started; an adopted one is there.
    Create,
    /// Asks Docker whether it can run a Calico task.
    Examine,
    /// Lets Docker's runtime find the task by the container's id.
    Publish,
    /// Asks for output and end, before there are any.
    Attach,
    /// Writes endpoint and address, and makes the interface work.
    Wire,
    /// Starts the workload, which then stands at the gate.
    Start,
    /// Looks at the running workload.
    Look,
}

impl Job {
    pub const ALL: [Self; 12] = [
        Self::Record,
        Self::Listen,
        Self::Sync,
        Self::Read,
        Self::Interface,
        Self::Create,
        Self::Examine,
        Self::Publish,
        Self::Attach,
        Self::Wire,
        Self::Start,
        Self::Look,
    ];

    /// When it does not end, what it asked for may still happen at any time.
    pub(super) fn may_come_late(self) -> bool {
        matches!(self, Self::Create | Self::Attach | Self::Start | Self::Wire)
    }
}

/// What has to be done before `job` can begin; `None`: a life of this kind has no such job.
pub fn needs(job: Job, kind: LifeKind) -> Option<&'static [Job]> {
    use Job::*;
    use LifeKind::*;
    Some(match (job, kind) {
        (Create, PlainContainer | PlainCommand) => &[],
        (Attach, PlainContainer | PlainCommand) => &[Create],
        (Start, PlainContainer | PlainCommand) => &[Attach],
        (Look, PlainContainer | PlainCommand) => &[Start],
        (_, PlainContainer | PlainCommand) => return None,
        // Docker is not asked about a container that it is about to start.
        (Start | Examine, Adopted | Again) | (Publish | Examine, CalicoCommand) => return None,
        (Record | Sync | Read, Again) => return None,
        (Record, _) | (Listen, Again) => &[],
        (Listen, _) => &[Record],
        (Publish, Again) => &[Interface, Create],
        (Publish, Adopted) => &[Sync, Read, Interface, Create],
        (Sync | Read | Interface | Create | Examine, _) => &[Listen],
        (Publish, _) => &[Sync, Read, Interface, Create, Examine],
        (Attach, CalicoCommand) => &[Create],
        (Attach, _) => &[Publish],
        (Wire, CalicoCommand) => &[Sync, Read, Interface, Create],
        (Start, CalicoCommand) => &[Attach, Interface],
        (Wire | Start, _) => &[Attach],
        (Look, CalicoContainer | CalicoCommand) => &[Wire, Start],
        (Look, Adopted | Again) => &[Wire],
    })
}
