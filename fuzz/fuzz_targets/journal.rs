//! A file in the journal's folder.
#![no_main]

use std::cell::OnceCell;

use calico_mesos::task::journal::{Found, Journal};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder for the records"));
        std::fs::write(folder.path().join("x.json"), data).expect("a record");
        let journal = Journal::open(folder.path()).expect("a journal");
        for found in journal.orphans().expect("a list, whatever is in it") {
            if let Found::Orphan(entry) = found {
                let record = &entry.record;
                assert_eq!(record.identity.interface, record.container.interface());
            }
        }
    });
});
