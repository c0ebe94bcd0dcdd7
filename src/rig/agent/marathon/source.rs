//! From a file to the one app definition in it that is meant: its encoding, and what lies around it.
//!
//! Marathon's API hands out `{"app": …}`, `{"apps": […]}` and whole groups; people save lists. One app is run, so a
//! file with several needs its id. Ids in a group are relative to the group unless they begin with a slash.

use serde_json::Value;

use super::AppError;

/// So many ids are listed in an error.
const LISTED: usize = 20;

/// The text of a file: UTF-8, or UTF-16 as Windows writes it, with or without a byte order mark.
pub(super) fn text(bytes: &[u8]) -> Result<String, AppError> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        match bytes.len() % 2 {
            0 => String::from_utf16(&units).map_err(|_| AppError::Encoding("UTF-16")),
            _ => Err(AppError::Encoding("UTF-16")),
        }
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf_8(rest),
        [0xFF, 0xFE, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        // JSON begins with an ASCII character, and holds no NUL.
        [0, first, ..] if *first != 0 => utf_16(bytes, u16::from_be_bytes),
        [first, 0, ..] if *first != 0 => utf_16(bytes, u16::from_le_bytes),
        _ => utf_8(bytes),
    }
}

fn utf_8(bytes: &[u8]) -> Result<String, AppError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| AppError::Encoding("UTF-8"))
}

/// The app with this id, or the only one of a file that holds one by itself.
pub(super) fn choose(value: Value, wanted: Option<&str>) -> Result<Value, AppError> {
    let value = unwrap(value);
    let (kind, all) = match &value {
        Value::Array(list) => ("a list of apps", apps(list, "/")),
        Value::Object(map) if map.contains_key("apps") || map.contains_key("groups") => {
            let kind = if map.contains_key("id") { "a group of apps" } else { "a list of apps" };
            (kind, group(&value, "/"))
        }
        _ => match wanted {
            Some(wanted) if absolute(&value["id"], "/").is_some_and(|id| id != path(wanted, "/")) => {
                let ids = absolute(&value["id"], "/").unwrap_or_default();
                return Err(AppError::NoSuchApp { wanted: wanted.to_owned(), ids });
            }
            _ => return app(value),
        },
    };
    let ids = listed(&all);
    let Some(wanted) = wanted else { return Err(AppError::Several { kind, ids }) };
    let found = all.into_iter().find(|(id, _)| *id == path(wanted, "/"));
    let (id, mut found) =
        found.ok_or_else(|| AppError::NoSuchApp { wanted: wanted.to_owned(), ids: ids.clone() })?;
    found["id"] = id.into();
    app(found)
}

/// The API's answer to `GET /v2/apps/ID`.
fn unwrap(mut value: Value) -> Value {
    match value.get_mut("app") {
        Some(app @ Value::Object(_)) => app.take(),
        _ => value,
    }
}

fn app(value: Value) -> Result<Value, AppError> {
    match value.get("containers") {
        Some(Value::Array(_)) => Err(AppError::Pod),
        _ => Ok(value),
    }
}

fn apps(list: &[Value], base: &str) -> Vec<(String, Value)> {
    let with_id = |app: &Value| Some((absolute(&app["id"], base)?, app.clone()));
    list.iter().map(|app| unwrap(app.clone())).filter_map(|app| with_id(&app)).collect()
}

fn group(group: &Value, base: &str) -> Vec<(String, Value)> {
    let base = absolute(&group["id"], base).unwrap_or_else(|| base.to_owned());
    let list = |name: &str| group[name].as_array().map_or(&[][..], Vec::as_slice);
    let mut all = apps(list("apps"), &base);
    all.extend(list("groups").iter().flat_map(|inner| self::group(inner, &base)));
    all
}

fn absolute(id: &Value, base: &str) -> Option<String> {
    Some(path(id.as_str()?, base))
}

/// `web` in `/shop` is `/shop/web`.
fn path(id: &str, base: &str) -> String {
    let base = if id.starts_with('/') { "" } else { base };
    let parts = base.split('/').chain(id.split('/')).filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| path + "/" + part)
}

fn listed(all: &[(String, Value)]) -> String {
    let mut ids: Vec<&str> = all.iter().map(|(id, _)| id.as_str()).take(LISTED).collect();
    let more = all.len().saturating_sub(LISTED);
    let more = (more > 0).then(|| format!("{more} more"));
    ids.extend(more.as_deref());
    match ids.is_empty() {
        true => "none has an id".to_owned(),
        false => ids.join(", "),
    }
}
