//! The edit of Docker's daemon.json: pure, text in and text out.
//!
//! Other keys keep their values and their order; the indentation is the file's own.

use std::path::Path;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{json, Map, Value};

use crate::names::RUNTIME;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("it is not valid JSON ({0}); correct it first, Docker cannot start with it either")]
    Json(String),
    #[error("its '{0}' is not an object")]
    Shape(&'static str),
    #[error("its runtime 'calico' is another program, {0}; remove that entry first")]
    Foreign(String),
    #[error("its 'default-runtime' is 'calico'; change that first")]
    Default,
}

/// The program of the runtime, where there is one.
pub fn registered(text: &str) -> Result<Option<String>, EditError> {
    let root = parse(text)?;
    let path = root.get("runtimes").and_then(|all| all.get(RUNTIME)?.get("path")?.as_str());
    Ok(path.map(str::to_owned))
}

/// With the runtime in it; `None` when it is there already.
pub fn add(text: &str, program: &Path) -> Result<Option<String>, EditError> {
    let mut root = parse(text)?;
    let runtimes = root.entry("runtimes").or_insert_with(|| json!({}));
    let runtimes = runtimes.as_object_mut().ok_or(EditError::Shape("runtimes"))?;
    let entry = runtimes.entry(RUNTIME).or_insert_with(|| json!({}));
    let entry = entry.as_object_mut().ok_or(EditError::Shape("runtimes.calico"))?;
    let path = program.to_string_lossy();
    match entry.get("path").and_then(Value::as_str) {
        Some(old) if old == path => return Ok(None),
        Some(old) if Path::new(old).file_name() != program.file_name() => {
            return Err(EditError::Foreign(old.to_owned()))
        }
        _ => {}
    }
    entry.insert("path".to_owned(), path.into());
    Ok(Some(print(&root, text)))
}

/// Without it; `None` when it is not there. An emptied `runtimes` stays when `keep_empty` says so:
/// a daemon that reloads the file forgets a runtime only then.
pub fn remove(text: &str, keep_empty: bool) -> Result<Option<String>, EditError> {
    let mut root = parse(text)?;
    if root.get("default-runtime").and_then(Value::as_str) == Some(RUNTIME) {
        return Err(EditError::Default);
    }
    let Some(runtimes) = root.get_mut("runtimes") else { return Ok(None) };
    let runtimes = runtimes.as_object_mut().ok_or(EditError::Shape("runtimes"))?;
    if runtimes.shift_remove(RUNTIME).is_none() {
        return Ok(None);
    }
    if runtimes.is_empty() && !keep_empty {
        root.shift_remove("runtimes");
    }
    Ok(Some(print(&root, text)))
}

/// Without an empty `runtimes`; the second half of a removal that `keep_empty` began.
pub fn drop_empty(text: &str) -> Result<Option<String>, EditError> {
    let mut root = parse(text)?;
    if root.get("runtimes") != Some(&json!({})) {
        return Ok(None);
    }
    root.shift_remove("runtimes");
    Ok(Some(print(&root, text)))
}

fn parse(text: &str) -> Result<Map<String, Value>, EditError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(root)) => Ok(root),
        Ok(_) => Err(EditError::Shape("the whole file")),
        Err(error) => Err(EditError::Json(error.to_string())),
    }
}

fn print(root: &Map<String, Value>, like: &str) -> String {
    if !like.trim().is_empty() && !like.trim_end().contains('\n') {
        // All on one line.
        let end = if like.ends_with('\n') { "\n" } else { "" };
        return written(root, serde_json::ser::CompactFormatter) + end;
    }
    let indented =
        like.lines().find(|line| line.starts_with([' ', '\t']) && line.trim_start().starts_with('"'));
    let indent = indented.map_or("  ", |line| &line[..line.len() - line.trim_start().len()]);
    let text = written(root, PrettyFormatter::with_indent(indent.as_bytes()));
    if like.is_empty() || like.ends_with('\n') {
        text + "\n"
    } else {
        text
    }
}

fn written(root: &Map<String, Value>, formatter: impl Formatter) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    root.serialize(&mut serializer).expect("maps with text keys can be written to memory");
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = "/opt/cm/calico-runc";

    fn added(text: &str) -> String {
        add(text, Path::new(OURS)).unwrap().unwrap()
    }

    #[test]
    fn the_files_own_look_stays() {
        let text = "{\n\t\"z\": 1,\n\t\"live-restore\": true,\n\t\"a\": 18446744073709551615\n}\n";
        let with = added(text);
        assert_eq!(
            with,
            "{\n\t\"z\": 1,\n\t\"live-restore\": true,\n\t\"a\": 18446744073709551615,\n\t\"runtimes\": {\n\t\t\"calico\": {\n\t\t\t\"path\": \"/opt/cm/calico-runc\"\n\t\t}\n\t}\n}\n"
        );
        assert_eq!(remove(&with, false).unwrap().unwrap(), text);
        assert_eq!(
            added("{\"debug\":true}"),
            format!("{{\"debug\":true,\"runtimes\":{{\"calico\":{{\"path\":\"{OURS}\"}}}}}}")
        );
    }

    #[test]
    fn adding_and_removing_the_runtime_restores_an_empty_file() {
        let with = added("");
        assert!(with.ends_with("}\n"));
        assert_eq!(remove(&with, false).unwrap().unwrap(), "{}\n");
        let kept = remove(&with, true).unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), json!({"runtimes": {}}));
        assert_eq!(drop_empty(&kept).unwrap().unwrap(), "{}\n");
        assert_eq!(drop_empty("{}").unwrap(), None);
    }

    #[test]
    fn adding_the_runtime_twice_changes_nothing() {
        assert_eq!(add(&added("{}"), Path::new(OURS)), Ok(None));
        assert_eq!(registered(&added("{}")), Ok(Some(OURS.to_owned())));
        assert_eq!(registered("{}"), Ok(None));
        assert_eq!(remove("{}", false), Ok(None));
        assert_eq!(remove(r#"{"runtimes":{"other":{"path":"x"}}}"#, false), Ok(None));
    }

    #[test]
    fn a_moved_program_is_followed_and_its_arguments_stay() {
        let old = r#"{"runtimes":{"calico":{"path":"/old/calico-runc","runtimeArgs":["--debug"]}}}"#;
        assert!(added(old).contains(OURS) && added(old).contains("--debug"));
    }

    #[test]
    fn a_daemon_json_that_cannot_be_edited_safely_is_refused() {
        let program = Path::new(OURS);
        assert!(matches!(add("{\"a\":1,}", program), Err(EditError::Json(_))));
        assert_eq!(add("[]", program), Err(EditError::Shape("the whole file")));
        assert_eq!(add(r#"{"runtimes":[]}"#, program), Err(EditError::Shape("runtimes")));
        let foreign = r#"{"runtimes":{"calico":{"path":"/usr/bin/else"}}}"#;
        assert_eq!(add(foreign, program), Err(EditError::Foreign("/usr/bin/else".to_owned())));
        assert_eq!(remove(r#"{"default-runtime":"calico"}"#, false), Err(EditError::Default));
    }

    proptest! {
        #[test]
        fn all_other_keys_stay(keys in prop::collection::vec(("[a-q-]{1,8}", any::<i64>()), 0..6)) {
            let root: Map<String, Value> = keys.into_iter().map(|(key, value)| (key, value.into())).collect();
            let text = serde_json::to_string_pretty(&root).unwrap();
            let back = remove(&added(&text), false).unwrap().unwrap();
            prop_assert_eq!(parse(&back).unwrap(), root);
        }
    }
}
