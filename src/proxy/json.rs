//! JSON as Docker reads it: as Go's `encoding/json` reads it into a struct.
//!
//! What Docker would read differently is a hole, so Go's rules are kept, and what Go decides by a rule that no one
//! would expect is refused:
//!
//! | | Go | here |
//! | --- | --- | --- |
//! | key of a struct | `Env`, else in any case; `ſ` and the Kelvin sign are letters, too | the same |
//! | the same key twice | the last, merged into what the first has left | refused |
//! | key of a map | exact | exact; twice is refused |
//! | `null` | as if it were not there | the same |
//! | bytes and escapes that are not Unicode | U+FFFD | the same |
//! | more text behind the value | ignored by older daemons | refused |
//!
//! An object keeps the text of each of its values, so that what is not edited stays as it is: large numbers, unknown
//! keys, order. Only levels that are read are taken apart; how deep the others are nested does not matter.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

/// Why a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("it is not valid JSON: {0}")]
    Syntax(serde_json::Error),
    #[error("it has the key '{}' more than once", .0.escape_debug())]
    Twice(String),
}

/// An object whose values are still text.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonObject<'a> {
    members: Vec<(String, Cow<'a, str>)>,
}

/// The text with U+FFFD in place of each byte that is not UTF-8.
pub fn text(body: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(body) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

impl<'a> JsonObject<'a> {
    /// Reads what Docker reads into a struct. `None`: it is something else than an object.
    pub fn of_struct(text: &'a str) -> Result<Option<Self>, JsonError> {
        Self::read(text, Some(folded))
    }

    /// The same where a key may stand more than once: its last value that is not `null` counts, as in Go.
    pub fn of_loose_struct(text: &'a str) -> Result<Option<Self>, JsonError> {
        Self::read(text, None)
    }

    /// Reads what Docker reads into a map. `None`: it is something else than an object.
    pub fn of_map(text: &'a str) -> Result<Option<Self>, JsonError> {
        Self::read(text, Some(str::to_owned))
    }

    fn read(text: &'a str, once: Option<fn(&str) -> String>) -> Result<Option<Self>, JsonError> {
        check(text)?;
        let mut rest = text.trim_ascii();
        if !rest.starts_with('{') {
            return Ok(None);
        }
        let (mut members, mut seen) = (Vec::new(), HashSet::new());
        rest = rest[1..].trim_ascii_start();
        while rest.starts_with('"') {
            let (key, after) = rest.split_at(end_of_string(rest));
            let key = string(key).unwrap_or_default();
            let value = after.trim_ascii_start().strip_prefix(':').unwrap_or_default().trim_ascii_start();
            let (value, after) = value.split_at(end_of_value(value));
            if once.is_some_and(|comparable| !seen.insert(comparable(&key))) {
                return Err(JsonError::Twice(key));
            }
            members.push((key, Cow::Borrowed(value)));
            rest = after.trim_ascii_start().trim_start_matches(',').trim_ascii_start();
        }
        Ok(Some(Self { members }))
    }

    /// The text of a struct's field; `None` where it is `null` or missing.
    pub fn field(&self, name: &str) -> Option<&str> {
        let (folded_name, given) =
            (folded(name), self.members.iter().rev().filter(|(_, value)| value != "null"));
        given.into_iter().find(|(key, _)| folded(key) == folded_name).map(|(_, value)| &**value)
    }

    /// The text of a struct's field that is a string; empty where Docker would read none.
    pub fn text(&self, name: &str) -> String {
        self.field(name).and_then(string).unwrap_or_default()
    }

    /// Keys and values of a map, in their order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(key, value)| (key.as_str(), &**value))
    }

    /// Gives a struct's field another value, in whatever case it stands there.
    pub fn set(&mut self, name: &str, value: &serde_json::Value) {
        self.set_text(name, value.to_string());
    }

    /// The same with the text of a value.
    pub fn set_text(&mut self, name: &str, value: String) {
        self.members.retain(|(key, _)| folded(key) != folded(name));
        self.members.push((name.to_owned(), Cow::Owned(value)));
    }
}

impl fmt::Display for JsonObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "{";
        for (key, value) in &self.members {
            write!(f, "{before}{}:{value}", serde_json::Value::from(key.as_str()))?;
            before = ",";
        }
        f.write_str(if self.members.is_empty() { "{}" } else { "}" })
    }
}

/// The texts of a list's items. `None`: it is something else than a list.
pub fn items(text: &str) -> Result<Option<Vec<&str>>, JsonError> {
    check(text)?;
    let Some(mut rest) = text.trim_ascii().strip_prefix('[') else { return Ok(None) };
    let mut items = Vec::new();
    rest = rest.trim_ascii_start();
    while !rest.is_empty() && !rest.starts_with(']') {
        let (item, after) = rest.split_at(end_of_value(rest));
        items.push(item);
        rest = after.trim_ascii_start().trim_start_matches(',').trim_ascii_start();
    }
    Ok(Some(items))
}

/// A string's content; of `null`, which Docker reads as an empty one, too. `None`: it is something else.
pub fn string(text: &str) -> Option<String> {
    if text == "null" {
        return Some(String::new());
    }
    serde_json::from_str::<Content>(text).ok().map(|content| content.0)
}

/// A list of strings; `None` where Docker would read something else.
pub fn strings(text: &str) -> Result<Option<Vec<String>>, JsonError> {
    Ok(items(text)?.and_then(|items| items.into_iter().map(string).collect()))
}

/// The key as it compares with others of a struct.
///
/// The fields have ASCII names, and two other characters are the same as an ASCII letter but for their case.
fn folded(key: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

/// One value and nothing else. serde's own reader, without recursion and whatever its depth.
fn check(text: &str) -> Result<(), JsonError> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(JsonError::Syntax)
}

/// Behind the quotation mark that ends the string at the beginning of a valid text.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let was_escaped = escaped;
        escaped = byte == b'\\' && !was_escaped;
        byte == b'"' && !was_escaped
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Behind the value at the beginning of a valid text.
fn end_of_value(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => at += end_of_string(&text[at..]),
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => break,
            b'}' | b']' => (at, depth) = (at + 1, depth - 1),
            _ => at += 1,
        }
        if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            break;
        }
    }
    at
}

/// A string with U+FFFD for what is not Unicode; serde would refuse the escape of half a character.
struct Content(String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Content, E> {
                Ok(Content(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{json, Value};

    use super::*;
    use crate::any_json::nested;

    fn read(text: &str) -> JsonObject<'_> {
        JsonObject::of_struct(text).unwrap().unwrap()
    }

    #[test]
    fn keys_of_a_struct_match_in_any_case() {
        for key in ["HostConfig", "hostconfig", "HOSTCONFIG", "ho\u{17f}tConfig", "\\u0048ostConfig"] {
            let text = format!("{{\"{key}\": 1}}");
            assert_eq!(read(&text).field("HostConfig"), Some("1"), "{key}");
        }
        assert_eq!(read("{\"\u{212a}ind\":2}").field("Kind"), Some("2"));
        assert_eq!(read("{\"Host_Config\":1, \"HostConfi\u{a731}\":1}").field("HostConfig"), None);
    }

    #[test]
    fn a_key_twice_is_refused() {
        for text in [
            r#"{"Env":1,"Env":2}"#,
            r#"{"Env":1,"env":2}"#,
            "{\"hostconfig\":1,\"Ho\u{17f}tConfig\":2}",
            r#"{"a":1,"\u0041":2}"#,
        ] {
            assert!(matches!(JsonObject::of_struct(text), Err(JsonError::Twice(_))), "{text}");
        }
        assert!(matches!(JsonObject::of_map(r#"{"a":1,"a":1}"#), Err(JsonError::Twice(_))));
        assert!(JsonObject::of_map(r#"{"a":1,"A":1}"#).unwrap().is_some());
        assert!(JsonObject::of_struct(r#"{"x":{"a":1,"a":2}}"#).unwrap().is_some(), "not read");
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        let deep = format!("{{\"a\":{}", "[".repeat(200_000));
        for text in [
            "",
            " ",
            "{",
            "{}{}",
            "{} x",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":\"\n\"}",
        ] {
            assert!(matches!(JsonObject::of_struct(text), Err(JsonError::Syntax(_))), "{text}");
        }
        assert!(JsonObject::of_struct(&deep).is_err());
        for text in ["null", "[]", "1", "\"{}\"", "true"] {
            assert_eq!(JsonObject::of_struct(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn deep_nesting_passes_unread() {
        let deep = format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&deep).field("B"), Some("1"));
    }

    #[test]
    fn what_is_not_edited_keeps_its_text() {
        let text = " { \"n\" : 12345678901234567890123 , \"e\":1E2,\"z\":-0, \"s\":\"\\u00fc\\ud800\",\"Q\\\"\":[ 1 , {} ] } ";
        let mut object = read(text);
        object.set("N2", &json!({"a": 1}));
        assert_eq!(
            object.to_string(),
            "{\"n\":12345678901234567890123,\"e\":1E2,\"z\":-0,\"s\":\"\\u00fc\\ud800\",\"Q\\\"\":[ 1 , {} ],\"N2\":{\"a\":1}}"
        );
        object.set("Z", &json!("x"));
        assert!(!object.to_string().contains("-0") && object.field("z") == Some("\"x\""));
        assert_eq!(read("{}").to_string(), "{}");
    }

    #[test]
    fn text_that_is_not_unicode_is_replaced_as_go_does() {
        assert_eq!(text(b"\"a\xff\xfe\""), "\"a\u{fffd}\u{fffd}\"");
        assert_eq!(text("ü".as_bytes()), "ü");
        assert_eq!(string(r#""x\ud800y""#).unwrap().chars().next_back(), Some('y'));
        assert!(string(r#""x\ud800y""#).unwrap().contains('\u{fffd}'));
        assert_eq!(string(r#""\ud83d\ude00""#).unwrap(), "\u{1f600}");
        assert_eq!((string("null"), string("1"), string("[104]")), (Some(String::new()), None, None));
        assert_eq!(strings(r#"["a", null , "b,]"]"#).unwrap().unwrap(), ["a", "", "b,]"]);
        assert_eq!((strings("[1]").unwrap(), strings("{}").unwrap()), (None, None));
    }

    proptest! {
        #[test]
        fn an_object_is_written_as_it_was_read(value in json_object(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let object = JsonObject::of_map(&text).unwrap().unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&object.to_string()).unwrap(), value.clone());
            for (key, part) in object.entries() {
                prop_assert_eq!(&serde_json::from_str::<Value>(part).unwrap(), &value[key]);
            }
        }

        #[test]
        fn a_list_has_its_items(list in proptest::collection::vec(any_value(), 0..6)) {
            let text = serde_json::to_string_pretty(&list).unwrap();
            let items = items(&text).unwrap().unwrap();
            let read: Vec<Value> = items.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn no_text_upsets_the_reader(body in "[{}\\[\\]\":,\\\\a1 nul-]{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for body in [body.as_bytes(), &bytes] {
                let text = text(body);
                let valid = serde_json::from_str::<IgnoredAny>(&text).is_ok();
                prop_assert!(JsonObject::of_map(&text).is_err() || valid);
                prop_assert_eq!(items(&text).is_ok(), valid);
                let _ = string(&text);
            }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(?s).{0,8}|[\"\\\\{},\\[\\]:]{0,6}".prop_map(Value::from),
        ];
        nested(leaf, "(?s).{0,4}|[\"\\\\{},]{0,4}")
    }

    fn json_object() -> impl Strategy<Value = Value> {
        let members = proptest::collection::vec(("(?s).{0,4}|[\"\\\\{},]{0,4}", any_value()), 0..6);
        members.prop_map(|members| members.into_iter().collect())
    }
}
