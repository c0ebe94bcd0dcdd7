//! The jobs of a life's set-up, and what each of them needs.

/// What a life is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A task that stock Mesos could run just as well.
    Plain,
    /// A container with an interface of Calico's.
    Calico,
    /// A command with one. It is this executor's own child, so that it may stand at the gate while the datastore is
    /// read; Docker would hold a lock on its container meanwhile.
    Command,
    /// The same for a container that others make and start, as clients of the Docker API do.
    Adopted,
}

impl Kind {
    /// It has a record in the journal, a gate, an address and names.
    pub(super) fn is_networked(self) -> bool {
        self != Self::Plain
    }
}

/// Whose clock ends the first grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Docker,
    Executor,
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
    /// Makes the namespace and the veth pair.
    Interface,
    /// Makes the workload ready to be started, or finds the adopted one.
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
pub fn needs(job: Job, kind: Kind) -> Option<&'static [Job]> {
    use Job::*;
    Some(match (job, kind) {
        (Create, Kind::Plain) => &[],
        (Attach, Kind::Plain) => &[Create],
        (Start, Kind::Plain) => &[Attach],
        (Look, Kind::Plain) => &[Start],
        (_, Kind::Plain) | (Start, Kind::Adopted) | (Publish, Kind::Command) => return None,
        (Record, _) => &[],
        (Listen, _) => &[Record],
        (Examine, Kind::Command) => return None,
        (Sync | Read | Interface | Create | Examine, _) => &[Listen],
        (Publish, _) => &[Sync, Read, Interface, Create, Examine],
        (Attach, Kind::Command) => &[Create],
        (Attach, _) => &[Publish],
        (Wire, Kind::Command) => &[Sync, Read, Interface, Create],
        (Start, Kind::Command) => &[Attach, Interface],
        (Wire | Start, _) => &[Attach],
        (Look, Kind::Calico | Kind::Command) => &[Wire, Start],
        (Look, Kind::Adopted) => &[Wire],
    })
}
