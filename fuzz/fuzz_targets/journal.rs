//! A file in the journal's folder.
#![no_main]

use std::cell::OnceCell;

use calico_mesos::task::record::journal::{Found, Journal};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder for the records"));
        let path = folder.path().join("x.json");
        std::fs::write(&path, data).expect("a record");
        if let Some(Found::Orphan(entry)) = Journal::take_over(&path).expect("an answer, whatever is in it") {
            let record = &entry.record;
            assert_eq!(record.identity.interface, record.container.interface());
        }
    });
});
