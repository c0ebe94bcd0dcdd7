//! Reads and writes as plain data: what `plan` and the others ask of `store`.

/// One key as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReadKey {
    pub key: String,
    pub value: Vec<u8>,
    pub revision: i64,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Range {
    Key(String),
    Prefix(String),
    /// The keys below a prefix without their values.
    Names(String),
    /// How many keys there are below a prefix.
    Count(String),
}

/// What must still be so for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Guard {
    /// The key's revision; 0 means that it does not exist.
    Revision { key: String, revision: i64 },
    /// No key below the prefix was written after this revision of the store.
    NoneNewer { prefix: String, revision: i64 },
    /// No key below the prefix was created after this revision; those that were there may have changed.
    NoneCreated { prefix: String, revision: i64 },
}

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Put { key: String, value: Vec<u8> },
    Delete { key: String },
}

/// Entries, and how many there are, in the order of the requested ranges.
#[derive(Debug, Clone)]
pub(super) struct ReadAnswer {
    pub revision: i64,
    pub ranges: Vec<Vec<ReadKey>>,
    pub counts: Vec<i64>,
}

#[derive(Debug)]
pub(super) enum Written {
    Done,
    /// A guard did not hold; here is what was asked for in that case, read in the same instant.
    Conflict(ReadAnswer),
}
