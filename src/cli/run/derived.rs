//! A copy of the operator's configuration with Consul switched off.

use std::io::ErrorKind;
use std::path::Path;

use toml::{Table, Value};

use crate::config::{ConfigError, DEFAULT_PATH};

/// The text of the copy. Everything else stays as it is, unknown values included.
pub fn without_consul(path: &Path) -> Result<String, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => String::new(),
        result => result.map_err(|source| ConfigError::Read { path: path.into(), source })?,
    };
    let mut table: Table = text.parse().map_err(|error| ConfigError::parse(path, &text, &error))?;
    let consul = table.entry("consul").or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(consul) = consul {
        consul.insert("enabled".into(), Value::Boolean(false));
    }
    let mut lines = String::new();
    flatten("", &table, &mut lines);
    Ok(lines)
}

/// One line a setting, `consul.enabled = false`.
fn flatten(prefix: &str, table: &Table, lines: &mut String) {
    for (name, value) in table {
        let name = format!("{prefix}{}", quoted(name));
        match value {
            Value::Table(inner) => flatten(&format!("{name}."), inner, lines),
            value => lines.push_str(&format!("{name} = {}\n", literal(value))),
        }
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let items = table.iter().map(|(name, value)| format!("{} = {}", quoted(name), literal(value)));
            format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
        }
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(yes) => yes.to_string(),
        Value::Datetime(time) => time.to_string(),
    }
}

/// A JSON string is a TOML string too, once the one character is escaped that JSON leaves as it is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_derived_configuration_differs_only_in_consul() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "[etcd]\nendpoints = [\"https://a:1\", \"https://b:2\"]\n[consul]\naddress = \"http://c:3\"\n\
                    [node]\nmtu = 1400\nname = \"say \\\"hi\\\"\\n\"\n[launch]\nretry_for = \"2m\"\n";
        std::fs::write(file.path(), text).unwrap();
        let mut expected = Config::load(file.path()).unwrap();
        assert!(expected.consul.enabled);
        expected.consul.enabled = false;

        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(copy.path(), without_consul(file.path()).unwrap()).unwrap();
        assert_eq!(Config::load(copy.path()).unwrap(), expected);
    }
}
