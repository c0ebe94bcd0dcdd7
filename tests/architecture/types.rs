//! A type has a name of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{code, rust_files};

/// Its types are sections of config.toml, and have their names: `[docker]` is `Docker`, as the client of Docker is.
const SECTIONS: &str = "src/config.rs";

/// A type's name says whose it is, so that a reader and a search find one type by it.
#[test]
fn no_two_public_types_have_one_name() {
    let mut places = BTreeMap::<String, BTreeSet<PathBuf>>::new();
    for (file, text) in rust_files("src").into_iter().filter(|(file, _)| file != Path::new(SECTIONS)) {
        for line in code(&text).lines().filter_map(|line| line.trim_start().strip_prefix("pub ")) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if matches!(kind, "struct" | "enum" | "trait" | "type" | "union") {
                places.entry(name.to_owned()).or_default().insert(file.clone());
            }
        }
    }
    assert!(places.len() > 200, "{}", places.len());
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}
