//! What may not leave the host is left out of every text here, and nowhere else.
//!
//! | what | how it is recognised |
//! | --- | --- |
//! | values that the host's files and environments hold as secrets | by themselves, in several spellings |
//! | `password = …`, `"token": …`, `--secret …` | by the name in front |
//! | environments in JSON | each value, whatever its name |
//! | private keys in PEM | from their first line to the last |
//! | users and passwords in addresses, `Bearer …`, web tokens | by their form |
//!
//! A path stays: where a secret lies is not one. Rather too much is left out than too little.

use std::collections::BTreeSet;
use std::path::Path;

use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::Engine;
use serde_json::Value;

/// Stands in the place of what was left out.
pub const MASK: &str = "[masked]";
/// A shorter value is left out only by its name: it would be found in every other word.
const SHORTEST: usize = 4;
/// Words that settings have as their values, which are no secrets.
const PLAIN: [&str; 8] = ["true", "false", "null", "none", "yes", "no", "on", "off"];

/// Holds the values that are secrets on this host.
#[derive(Debug, Default)]
pub struct Mask {
    /// All spellings, the longest first.
    values: Vec<String>,
}

impl Mask {
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let worth = |value: &String| value.len() >= SHORTEST && !is_plain(value);
        let spellings: BTreeSet<String> =
            values.into_iter().filter(worth).flat_map(|value| spellings(&value)).collect();
        let mut values: Vec<String> = spellings.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// The text without secrets.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), MASK);
            }
        }
        by_form(&text)
    }
}

fn is_plain(value: &str) -> bool {
    PLAIN.contains(&value.to_ascii_lowercase().as_str())
}

/// The value as it stands in JSON, in a URL and in base64 besides.
fn spellings(value: &str) -> Vec<String> {
    let json = Value::from(value).to_string();
    let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
    let url: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    vec![value.to_owned(), json, url.replace('+', "%20"), url, STANDARD_NO_PAD.encode(value)]
}

/// Leaves out what its name or its form gives away.
fn by_form(text: &str) -> String {
    if let Some(masked) = document(text, true) {
        return masked + "\n";
    }
    let mut kept: Vec<String> = Vec::new();
    let mut within_key = false;
    for line in text.lines() {
        if within_key {
            within_key = !is_key_line(line, "-----END ");
            continue;
        }
        if let (Some(end), None) = (key_line(line, "-----END "), key_line(line, "-----BEGIN ")) {
            // The beginning was cut off with the rest of a log.
            while kept.last().is_some_and(|line| is_base64(line)) {
                kept.pop();
            }
            kept.push(format!("{MASK}{}", &line[end..]));
            continue;
        }
        let (line, open) = without_keys(line);
        within_key = open;
        kept.push(document(&line, false).unwrap_or_else(|| masked_line(&line)));
    }
    let end = if text.ends_with('\n') { "\n" } else { "" };
    kept.join("\n") + end
}

fn is_base64(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 16 && line.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
}

fn is_key_line(line: &str, begin: &str) -> bool {
    key_line(line, begin).is_some()
}

/// Where the mark of a private key ends in this line.
fn key_line(line: &str, begin: &str) -> Option<usize> {
    let at = line.find(begin)? + begin.len();
    let end = at + line[at..].find("-----")?;
    line[at..end].contains("KEY").then_some(end + 5)
}

/// Private keys that begin here; true: the last one goes on in the next line.
fn without_keys(line: &str) -> (String, bool) {
    let mut rest = line;
    let mut kept = String::new();
    while let Some(begin) = rest.find("-----BEGIN ").filter(|_| is_key_line(rest, "-----BEGIN ")) {
        kept.push_str(&rest[..begin]);
        kept.push_str(MASK);
        match key_line(&rest[begin..], "-----END ") {
            Some(end) => rest = &rest[begin + end..],
            None => return (kept, true),
        }
    }
    (kept + rest, false)
}

/// JSON has its names and values apart.
fn document(text: &str, pretty: bool) -> Option<String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    if value.as_array().is_some_and(|list| !list.iter().any(|item| item.is_object() || item.is_string())) {
        return None;
    }
    masked_value(&mut value);
    if pretty {
        serde_json::to_string_pretty(&value).ok()
    } else {
        serde_json::to_string(&value).ok()
    }
}

fn masked_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = by_form(text).trim_end_matches('\n').to_owned(),
        Value::Array(list) => list.iter_mut().for_each(masked_value),
        Value::Object(map) => {
            let name = ["name", "Name", "key", "Key"].iter().find_map(|key| map.get(*key)?.as_str());
            // Of a pair of name and value, the name stays and decides over the value.
            let pair = name.filter(|_| map.keys().any(|key| key.eq_ignore_ascii_case("value")));
            let pair = pair.map(str::to_owned);
            for (key, value) in map.iter_mut() {
                if is_environment(key) {
                    without_values(value);
                } else if let Some(name) = pair
                    .as_deref()
                    .filter(|_| key.eq_ignore_ascii_case("value"))
                    .filter(|name| is_secret(name))
                {
                    hide(name, value);
                } else if pair.as_deref().is_some_and(is_setting) && key.eq_ignore_ascii_case("key") {
                    // The name itself, of which a setting's document says what it is.
                } else if is_secret(key) {
                    hide(key, value);
                } else {
                    masked_value(value);
                }
            }
        }
        _ => {}
    }
}

/// `etcd.key_file` or `DB_PASSWORD`, not what a key itself looks like.
fn is_setting(name: &str) -> bool {
    name.len() <= 40
        && name.contains(['.', '_'])
        && name.chars().all(|c| c.is_ascii_alphabetic() || "._".contains(c))
}

/// A whole secret. What lies below such a name is one as well.
fn hide(key: &str, value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::String(text) if text.is_empty() || is_plain(text) || is_place(key, text) => {}
        Value::Array(list) => list.iter_mut().for_each(|value| hide(key, value)),
        Value::Object(map) => map.iter_mut().for_each(|(_, value)| hide(key, value)),
        value => *value = MASK.into(),
    }
}

/// An environment in JSON: `{"A": "b"}`, `["A=b"]`, `[{"name": "A", "value": "b"}]`. The names stay.
fn without_values(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let is_name = key.eq_ignore_ascii_case("name") && value.is_string();
                if key.eq_ignore_ascii_case("variables") {
                    without_values(value);
                } else if !is_name {
                    *value = MASK.into();
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(without_values),
        Value::String(text) => {
            *text = text.split_once('=').map_or(MASK.to_owned(), |(name, _)| format!("{name}={MASK}"));
        }
        _ => {}
    }
}

/// The name of an environment.
fn is_environment(name: &str) -> bool {
    let name = joined(name);
    name == "env" || name.ends_with("environment") || name.ends_with("environmentvariables")
}

fn joined(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// Whether a value of this name is a secret.
pub fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 12] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "apikey",
        "privatekey",
        "accesskey",
        "signingkey",
        "encryptionkey",
        "environmentvariables",
    ];
    const WORDS: [&str; 10] =
        ["pass", "pwd", "psk", "auth", "auths", "authorization", "cookie", "key", "keys", "env"];
    let whole = joined(name);
    let is_word = |word: &str| WORDS.contains(&word.to_ascii_lowercase().as_str());
    PARTS.iter().any(|part| whole.contains(part))
        || whole.ends_with("environment")
        || words(name).any(is_word)
}

/// The words of `ETCD_KEY`, `etcd-key` and `etcdKey`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).flat_map(|part| {
        let mut ends: Vec<usize> = vec![0];
        let bytes = part.as_bytes();
        ends.extend(
            (1..bytes.len())
                .filter(|at| bytes[*at].is_ascii_uppercase() && bytes[*at - 1].is_ascii_lowercase()),
        );
        ends.push(bytes.len());
        ends.windows(2).map(|pair| &part[pair[0]..pair[1]]).collect::<Vec<_>>()
    })
}

/// A secret's place, which an operator has to see, and not the secret.
fn is_place(key: &str, value: &str) -> bool {
    let path = value.strip_prefix("file://").unwrap_or(value);
    let names_a_file = ["file", "path", "dir", "folder"].iter().any(|end| joined(key).ends_with(end));
    path.starts_with('/') && !path.contains(char::is_whitespace) && (names_a_file || Path::new(path).exists())
}

/// A line of any other text.
fn masked_line(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    while let Some((name, value, whole)) = next_name(rest, kept.is_empty()) {
        let end = value + length(&rest[value..], whole);
        let text = rest[value..end].trim_matches(['"', '\'', '\\']);
        kept.push_str(&rest[..value]);
        let stays = text.is_empty() || text.contains(MASK) || is_plain(text) || is_place(name, text);
        kept.push_str(if stays { &rest[value..end] } else { MASK });
        rest = &rest[end..];
    }
    kept.push_str(rest);
    by_shape(&kept)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

/// The next name of a secret in the text, where its value begins, and whether that takes the rest of the line.
fn next_name(text: &str, at_begin: bool) -> Option<(&str, usize, bool)> {
    let mut from = 0;
    while let Some(start) = text[from..].find(is_of_name).map(|at| from + at) {
        let end = start + text[start..].find(|c| !is_of_name(c)).unwrap_or(text.len() - start);
        let name = &text[start..end];
        from = end;
        if !is_secret(name) {
            continue;
        }
        let after = text[end..].trim_start_matches(['"', '\'', '\\']);
        let blanks = after.trim_start();
        let begin_of = |rest: &str| text.len() - rest.trim_start_matches([' ', '\t']).len();
        let first = text[..start].trim().trim_start_matches("- ").trim_start_matches('"');
        let whole =
            at_begin && !name.starts_with('-') && (first.is_empty() || first == "export" || first == "-");
        if let Some(value) = blanks.strip_prefix('=').or_else(|| blanks.strip_prefix(':')) {
            let value = value.strip_prefix('>').unwrap_or(value);
            return Some((name, begin_of(value), whole));
        }
        let is_flag = name.starts_with('-') && blanks.len() < after.len() && !blanks.starts_with('-');
        if is_flag && !blanks.is_empty() {
            return Some((name, begin_of(after), false));
        }
    }
    None
}

/// How far a value reaches.
fn length(value: &str, whole: bool) -> usize {
    let quote = value.trim_start_matches('\\').chars().next().filter(|c| ['"', '\''].contains(c));
    if let Some(quote) = quote {
        let begin = value.find(quote).unwrap_or(0);
        let escaped = &value[..begin];
        let mut at = begin + 1;
        while let Some(next) = value[at..].find(quote).map(|next| at + next) {
            let slashes = value[..next].len() - value[..next].trim_end_matches('\\').len();
            if slashes <= escaped.len() {
                return next + 1;
            }
            at = next + 1;
        }
        return value.len();
    }
    if whole || value.starts_with(['{', '[']) && !value.starts_with(MASK) {
        return value.len();
    }
    let ends = |c: char| c.is_whitespace() || ",;&\"')}]".contains(c);
    let scheme = ["bearer ", "basic "]
        .iter()
        .find(|scheme| value.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme)));
    let from = scheme.map_or(0, |scheme| scheme.len());
    let from = if value.starts_with(MASK) { MASK.len() } else { from };
    from + value[from..].find(ends).unwrap_or(value.len() - from)
}

/// Users and passwords of addresses, what follows `Bearer`, web tokens.
fn by_shape(line: &str) -> String {
    let mut kept = String::new();
    for (index, part) in line.split("://").enumerate() {
        if index == 0 {
            kept.push_str(part);
            continue;
        }
        kept.push_str("://");
        let end = part.find(|c: char| c.is_whitespace() || "\"'<>".contains(c)).unwrap_or(part.len());
        match part[..end].rfind('@') {
            Some(at) => kept.push_str(&format!("{MASK}{}", &part[at..])),
            None => kept.push_str(part),
        }
    }
    let mut after_scheme = false;
    let masked = |word: &str| {
        let is_token = after_scheme && word.len() > 1 && !word.contains(MASK);
        after_scheme = ["bearer", "basic"].contains(&word.trim_matches('"').to_ascii_lowercase().as_str());
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_web_token = bare.contains("eyJ") && bare.matches('.').count() >= 2;
        if is_token || is_web_token {
            MASK.to_owned()
        } else {
            word.to_owned()
        }
    };
    kept.split(' ').map(masked).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
