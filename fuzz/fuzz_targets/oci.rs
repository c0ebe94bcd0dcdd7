//! A container's config.json, as Docker hands it to calico-runc.
#![no_main]

use std::path::Path;

use calico_mesos::runtime::edit;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let namespace = Path::new("/run/calico-mesos/tasks/x/netns");
    if let Ok(edited) = edit(text, "0123456789abcdef", namespace) {
        let again = edit(&edited.text, "0123456789abcdef", namespace).expect("what was written is read");
        assert_eq!(again.text, edited.text);
    }
});
