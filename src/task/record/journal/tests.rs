//! Who owns a record, who may take it over, and what other releases make of it.

use serde::Deserialize;

use super::*;
use crate::error::{Code, Failure};
use crate::net::forward::Protocol;
use crate::task::channel::Outcome;

pub(crate) fn record() -> Record {
    let container = ContainerId::random();
    let identity = Identity::new("agent-1", &container, "/web", "web.1");
    Record {
        backing: Backing::Container {
            docker: "unix:///var/run/docker.sock".into(),
            name: format!("mesos-{container}"),
            adopted: false,
        },
        framework: "fw-0".into(),
        local: true,
        ..Record::new(container, identity)
    }
}

fn orphans(journal: &Journal) -> Vec<Found> {
    let files = journal.files().unwrap();
    files.iter().filter_map(|path| Journal::take_over(path).unwrap()).collect()
}

proptest::proptest! {
    #[test]
    fn any_file_is_read_as_a_record_or_left_alone(cut in 0usize..2000, put in "(?s).{0,6}", take in 0usize..40) {
        let text = serde_json::to_string_pretty(&record()).unwrap() + "\n";
        let at = text.floor_char_boundary(cut.min(text.len()));
        let rest = text.ceil_char_boundary((at + take).min(text.len()));
        let broken = format!("{}{put}{}", &text[..at], &text[rest..]);
        if let Ok(parsed) = parse(&broken) {
            let again = serde_json::to_string(&parsed.record).unwrap() + "\n";
            proptest::prop_assert_eq!(parse(&again).unwrap().record, parsed.record);
        }
    }
}

#[test]
fn one_broken_file_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let mut foreign = record();
    foreign.identity.interface = "eth0".into();
    for (name, text) in [("a.json", &b"\xff\0"[..]), ("b.json", &serde_json::to_vec(&foreign).unwrap())] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    fs::create_dir(dir.path().join("c.json")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("d.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("e.json")).unwrap();
    drop(journal.begin(record()).unwrap());
    let found = orphans(&journal);
    let orphans = found.iter().filter(|found| matches!(found, Found::Orphan(_))).count();
    assert_eq!((found.len(), orphans), (6, 1), "{found:?}");
}

#[test]
fn a_living_owner_keeps_its_record_and_a_dead_one_loses_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("tasks")).unwrap();
    let record = record();
    let entry = journal.begin(record.clone()).unwrap();
    entry.sync().unwrap();
    let path = journal.path(&record.container);
    assert!(orphans(&journal).is_empty());
    assert_eq!(Journal::peek(&path).unwrap(), Some(Peeked::Owned(Some(Box::new(record.clone())))));
    assert!(matches!(journal.begin(record.clone()), Err(JournalError::Owned { .. })));

    drop(entry);
    assert_eq!(Journal::peek(&path).unwrap(), Some(Peeked::Orphan(Box::new(record.clone()))));
    let mut found = orphans(&journal);
    let Some(Found::Orphan(orphan)) = found.pop() else { panic!("no orphan: {found:?}") };
    assert_eq!(orphan.record, record);
    assert!(orphans(&journal).is_empty(), "taken over twice");
    assert!(matches!(Journal::peek(&path).unwrap(), Some(Peeked::Owned(_))));
    orphan.finish().unwrap();
    assert!(journal.is_empty());
}

#[test]
fn a_write_under_way_is_known_to_the_next_owner() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("tasks")).unwrap();
    let entry = journal.begin(record()).unwrap();
    let path = journal.path(&entry.record.container);
    let alone = fs::read_to_string(&path).unwrap();
    let pending = |handle: &str| -> Pending {
        let fence = r#"{"key":"/calico/x","revision":7,"block":"10.0.0.0/26"}"#;
        serde_json::from_str(&format!(r#"{{"handle":"{handle}","fences":[{fence}]}}"#)).unwrap()
    };
    entry.expect(&pending("mesos.a-long-one")).unwrap();
    entry.expect(&pending("mesos.b")).unwrap();
    let adopted = |text: &str| {
        fs::write(&path, text).unwrap();
        match adopt(&path).unwrap() {
            Some(Found::Orphan(orphan)) => (orphan.pending.map(|pending| *pending), orphan.length),
            other => panic!("{other:?}"),
        }
    };
    let both = fs::read_to_string(&path).unwrap();
    entry.settled();
    assert_eq!(fs::read_to_string(&path).unwrap(), alone);
    drop(entry);
    let length = alone.len() as u64;
    assert_eq!(adopted(&both), (Some(pending("mesos.b")), length));
    assert_eq!(adopted(&both[..both.len() - 9]), (None, length), "it was never sent");
    assert_eq!(adopted(&alone), (None, length));
}

#[test]
fn held_addresses_stand_in_the_record_until_they_are_settled() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("tasks")).unwrap();
    let entry = journal.begin(record()).unwrap();
    let path = journal.path(&entry.record.container);
    let alone = fs::read_to_string(&path).unwrap();
    let held: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    entry.leave_word();
    entry.given(&held);
    assert_eq!(fs::read_to_string(&path).unwrap(), alone, "as the release before reads it");
    entry.leave_word();
    let parsed = parse(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((parsed.held.as_deref(), parsed.pending), (Some(held.as_slice()), None));
    assert_eq!((parsed.record, parsed.length), (entry.record.clone(), alone.len() as u64));
    entry.settled();
    assert_eq!(fs::read_to_string(&path).unwrap(), alone);
}

/// The ending outlasts what is written and settled beside it, and the release before finds its own line first.
#[test]
fn how_a_task_ended_stays_with_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("tasks")).unwrap();
    let entry = journal.begin(record()).unwrap();
    let path = journal.path(&entry.record.container);
    let pending: Pending = serde_json::from_str(r#"{"handle":"mesos.x","fences":[]}"#).unwrap();
    let ending = Ending { outcome: "exited".into(), code: Some(3.into()), message: None };
    let seen = || {
        let parsed = parse(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(parsed.record, entry.record);
        (parsed.pending.map(|pending| *pending), parsed.held, parsed.ending)
    };
    entry.expect(&pending).unwrap();
    entry.conclude(&ending);
    assert_eq!(seen(), (Some(pending.clone()), None, Some(ending.clone())));
    let text = fs::read_to_string(&path).unwrap();
    let behind =
        |at: usize| serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>().nth(at);
    assert!(Pending::deserialize(&behind(1).unwrap().unwrap()).is_ok(), "{text}");
    entry.settled();
    assert_eq!(seen(), (None, None, Some(ending.clone())));
    let held: [IpAddr; 1] = ["10.0.0.1".parse().unwrap()];
    entry.given(&held);
    entry.leave_word();
    assert_eq!(seen(), (None, Some(held.to_vec()), Some(ending.clone())));
    drop(entry);
    let Some(Found::Orphan(orphan)) = adopt(&path).unwrap() else { panic!("no orphan") };
    assert_eq!((orphan.ending(), orphan.held()), (Some(&ending), held.as_slice()));
    orphan.settled();
    assert_eq!(adopted_ending(&path), Some(ending));
}

/// The codes of other releases are kept as they are; those of this one are written as they always were.
#[test]
fn an_ending_with_the_code_of_another_release_is_read() {
    let record = serde_json::to_string(&record()).unwrap();
    for code in ["CM-IP-TAKEN", "CM-FROM-TOMORROW"] {
        let line = format!(r#"{{"outcome":"failed","code":"{code}","message":"no address"}}"#);
        let ending = parse(&format!("{record}\n{line}\n")).unwrap().ending.unwrap();
        assert_eq!(ending.code, Some(code.into()));
        assert_eq!(serde_json::to_string(&ending).unwrap(), line);
    }
    let failed = Outcome::Failed(Failure::new(Code::IpTaken, "no address"));
    assert_eq!(Ending::from(&failed).code, Some("CM-IP-TAKEN".into()));
}

fn adopted_ending(path: &Path) -> Option<Ending> {
    parse(&fs::read_to_string(path).unwrap()).unwrap().ending
}

/// A release that knows nothing of a field reads past it, as serde does unless told otherwise.
#[test]
fn ports_are_readable_both_ways() {
    let old = serde_json::to_string(&record()).unwrap();
    assert!(!old.contains("\"ports\""), "{old}");
    assert_eq!(parse(&old).unwrap().record.ports, []);
    let ports = vec![Mapping { protocol: Protocol::Tcp, host: 31000, task: 80 }];
    let new = serde_json::to_string(&Record { ports: ports.clone(), ..record() }).unwrap();
    assert!(new.contains(r#""ports":[{"protocol":"tcp","host":31000,"task":80}]"#), "{new}");
    assert_eq!(parse(&new).unwrap().record.ports, ports);
    let newer = new.replacen('{', r#"{"later": {"a": 1}, "#, 1);
    assert_eq!(parse(&newer).unwrap().record.ports, ports);
}

#[test]
fn files_that_are_not_records_stay() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    fs::write(dir.path().join("a.json"), "{\"format\": 99}").unwrap();
    fs::write(dir.path().join("b.json"), "garbage").unwrap();
    fs::write(dir.path().join("notes.txt"), "hello").unwrap();
    let found = orphans(&journal);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|found| matches!(found, Found::Unreadable { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn a_temporary_of_a_dead_writer_goes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let temporary = write_locked(&dir.path().join(".x.1"), &record()).unwrap();
    let touch = |age| temporary.0.set_modified(SystemTime::now() - age).unwrap();
    touch(TEMPORARY_AGE * 2);
    assert!(orphans(&journal).is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "its writer lives");
    touch(Duration::ZERO);
    drop(temporary);
    assert!(orphans(&journal).is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "its writer is about to lock it");
    File::open(dir.path().join(".x.1")).unwrap().set_modified(SystemTime::now() - TEMPORARY_AGE * 2).unwrap();
    assert!(orphans(&journal).is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// As a file system leaves it that had noted name and length, but not what was in it.
#[test]
fn a_record_that_a_loss_of_power_has_emptied_goes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for text in ["", "\0\0\0\0"] {
        let path = journal.path(&ContainerId::random());
        fs::write(&path, text).unwrap();
        assert_eq!(Journal::peek(&path).unwrap(), None);
        let owner = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
        assert_eq!(Journal::peek(&path).unwrap(), Some(Peeked::Owned(None)));
        assert!(Journal::take_over(&path).unwrap().is_none() && path.exists());
        drop(owner);
        assert!(Journal::take_over(&path).unwrap().is_none() && !path.exists());
    }
}

#[test]
fn the_owner_is_this_process() {
    let owner = Owner::current();
    assert!(owner.start_time > 0 && owner.boot_id.len() == 36 && owner.lives(), "{owner:?}");
    assert!(!Owner { start_time: owner.start_time + 1, ..owner.clone() }.lives());
    assert!(!Owner { boot_id: "another".into(), ..owner }.lives());
}
