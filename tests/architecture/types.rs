//! A type has a name of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{code, rust_files};

/// Its types are sections of config.toml, and have their names: `[docker]` is `Docker`, as the client of Docker is.
const SECTIONS: &str = "src/config.rs";

/// The name of the type that this line declares for others than its own module: with `pub`, `pub(crate)`, `pub(super)`
/// or `pub(in …)`.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(place) => place.split_once(')')?.1,
        None => rest,
    };
    let rest = rest.strip_prefix(' ')?;
    let mut words =
        rest.strip_prefix("unsafe ").unwrap_or(rest).split(|c: char| !c.is_alphanumeric() && c != '_');
    let is_type = matches!(words.next()?, "struct" | "enum" | "trait" | "type" | "union");
    words.next().filter(|_| is_type)
}

/// A type's name says whose it is, so that a reader and a search find one type by it. A type that only its own module
/// can name may be called as suits that module: there is nothing to look for elsewhere.
#[test]
fn no_two_types_that_cross_a_module_have_one_name() {
    for (line, name) in [
        ("pub struct A(u8);", Some("A")),
        ("    pub(super) enum B {", Some("B")),
        ("pub(in crate::task) type C<T> = D<T>;", Some("C")),
        ("pub(crate) trait E: F {}", Some("E")),
        ("struct G;", None),
        ("pub(super) fn struct_h() {}", None),
        ("pub use enum_i::J;", None),
    ] {
        assert_eq!(declared(line), name, "{line}");
    }
    let mut places = BTreeMap::<String, BTreeSet<PathBuf>>::new();
    for (file, text) in rust_files("src").into_iter().filter(|(file, _)| file != Path::new(SECTIONS)) {
        for name in code(&text).lines().filter_map(declared) {
            places.entry(name.to_owned()).or_default().insert(file.clone());
        }
    }
    assert!(places.len() > 500, "{}", places.len());
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}
