//! Calico's selector language: which nodes an IP pool selects, which endpoints a policy.
//!
//! Grammar: `or := and ("||" and)*`, `and := not ("&&" not)*`, `not := "!"* ("(" or ")" | test)`, and as
//! tests `all()`, `global()`, `has(key)`, `key == 'v'`, `key != 'v'`, `key in {…}`, `key not in {…}`,
//! `key contains 'v'`, `key starts with 'v'`, `key ends with 'v'`. An empty text selects everything.
//! What is not understood is an error: guessing could give a host addresses that are not routed to it.

use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// Parentheses within parentheses: beyond any real selector, far below what a thread's stack holds.
const DEEPEST: u32 = 100;
/// It ends up in a message to the framework.
const LONGEST_MESSAGE: usize = 500;

/// Whether the selector's text selects an object with these labels; the error says what is not understood.
pub(super) fn selects(text: &str, labels: &Labels) -> Result<bool, String> {
    parse(text).map(|selector| selector.selects(labels))
}

/// Whether the text is a selector; the error says what is not understood.
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// The selector of a text; the error says what is not understood.
pub(super) fn parse(text: &str) -> Result<Selector, String> {
    if text.trim().is_empty() {
        return Ok(Selector::All);
    }
    let mut parser = Parser { rest: text, depth: 0 };
    let result = parser.any().and_then(|selector| match parser.rest.trim_start() {
        "" => Ok(selector),
        rest => Err(format!("unexpected '{rest}'")),
    });
    result.map_err(|problem| format!("selector '{text}': {problem}").chars().take(LONGEST_MESSAGE).collect())
}

/// A selector that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    All,
    Global,
    /// One test of one label.
    Label(String, LabelTest),
    Not(Box<Selector>),
    Every(Vec<Selector>),
    Any(Vec<Selector>),
}

/// What a label has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LabelTest {
    Present,
    Is(String),
    IsNot(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Contains(String),
    Begins(String),
    Ends(String),
}

impl LabelTest {
    pub(super) fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::Present => value.is_some(),
            Self::Is(wanted) => value == Some(wanted),
            Self::IsNot(unwanted) => value != Some(unwanted),
            Self::In(set) => value.is_some_and(|value| set.iter().any(|own| own == value)),
            Self::NotIn(set) => !value.is_some_and(|value| set.iter().any(|own| own == value)),
            Self::Contains(part) => value.is_some_and(|value| value.contains(part.as_str())),
            Self::Begins(start) => value.is_some_and(|value| value.starts_with(start.as_str())),
            Self::Ends(end) => value.is_some_and(|value| value.ends_with(end.as_str())),
        }
    }
}

/// A change of a label that would make a selector select, or not select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelChange {
    pub key: String,
    pub test: LabelTest,
    /// What the test has to come to.
    pub wanted: bool,
}

impl Selector {
    /// Whether it selects an object with these labels.
    pub(super) fn selects(&self, labels: &Labels) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Label(key, test) => test.holds(labels.get(key).map(String::as_str)),
            Self::Not(inner) => !inner.selects(labels),
            Self::Every(parts) => parts.iter().all(|part| part.selects(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.selects(labels)),
        }
    }

    /// The same over labels whose keys have a prefix, as Calico keeps those of namespaces.
    pub(super) fn prefixed(self, prefix: &str) -> Self {
        let all = |parts: Vec<Self>| parts.into_iter().map(|part| part.prefixed(prefix)).collect();
        match self {
            Self::All | Self::Global => self,
            Self::Label(key, test) => Self::Label(format!("{prefix}{key}"), test),
            Self::Not(inner) => Self::Not(Box::new(inner.prefixed(prefix))),
            Self::Every(parts) => Self::Every(all(parts)),
            Self::Any(parts) => Self::Any(all(parts)),
        }
    }

    /// The same with another meaning of `all()`, and of `global()` where one is given.
    pub(super) fn meaning(self, all: &Self, global: Option<&Self>) -> Self {
        let each = |parts: Vec<Self>| parts.into_iter().map(|part| part.meaning(all, global)).collect();
        match self {
            Self::All => all.clone(),
            Self::Global => global.cloned().unwrap_or(Self::Global),
            Self::Label(..) => self,
            Self::Not(inner) => Self::Not(Box::new(inner.meaning(all, global))),
            Self::Every(parts) => Self::Every(each(parts)),
            Self::Any(parts) => Self::Any(each(parts)),
        }
    }

    /// The fewest changes of labels that make it select, or not select; none where no label can.
    pub(super) fn changes(&self, labels: &Labels, wanted: bool) -> Option<Vec<LabelChange>> {
        if self.selects(labels) == wanted {
            return Some(Vec::new());
        }
        match self {
            Self::All | Self::Global => None,
            Self::Label(key, test) => {
                Some(vec![LabelChange { key: key.clone(), test: test.clone(), wanted }])
            }
            Self::Not(inner) => inner.changes(labels, !wanted),
            Self::Every(parts) | Self::Any(parts) => {
                let needs_each = matches!(self, Self::Every(_)) == wanted;
                let mut changes = parts.iter().map(|part| part.changes(labels, wanted));
                match needs_each {
                    true => changes.collect::<Option<Vec<_>>>().map(|changes| changes.concat()),
                    false => changes.by_ref().flatten().min_by_key(Vec::len),
                }
            }
        }
    }
}

/// `one` alone where it is one, else all of them together.
fn joined(mut parts: Vec<Selector>, all: fn(Vec<Selector>) -> Selector) -> Selector {
    match parts.len() {
        1 => parts.remove(0),
        _ => all(parts),
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Selector, String> {
        let mut parts = vec![self.every()?];
        while self.take("||") {
            parts.push(self.every()?);
        }
        Ok(joined(parts, Selector::Any))
    }

    fn every(&mut self) -> Result<Selector, String> {
        let mut parts = vec![self.negated()?];
        while self.take("&&") {
            parts.push(self.negated()?);
        }
        Ok(joined(parts, Selector::Every))
    }

    fn negated(&mut self) -> Result<Selector, String> {
        let mut negate = false;
        while !self.rest.trim_start().starts_with("!=") && self.take("!") {
            negate = !negate;
        }
        let selector = if self.take("(") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(format!("more than {DEEPEST} parentheses are open"));
            }
            let inner = self.any()?;
            self.expect(")")?;
            self.depth -= 1;
            inner
        } else {
            self.test()?
        };
        Ok(if negate { Selector::Not(Box::new(selector)) } else { selector })
    }

    fn test(&mut self) -> Result<Selector, String> {
        let word = self.word()?;
        match word {
            "all" | "global" if self.take("(") => {
                self.expect(")")?;
                return Ok(if word == "all" { Selector::All } else { Selector::Global });
            }
            "has" if self.take("(") => {
                let key = self.word()?;
                self.expect(")")?;
                return Ok(Selector::Label(key.to_owned(), LabelTest::Present));
            }
            _ => {}
        }
        Ok(Selector::Label(word.to_owned(), self.comparison()?))
    }

    fn comparison(&mut self) -> Result<LabelTest, String> {
        if self.take("==") {
            return Ok(LabelTest::Is(self.text()?));
        }
        if self.take("!=") {
            return Ok(LabelTest::IsNot(self.text()?));
        }
        match self.word()? {
            "in" => Ok(LabelTest::In(self.set()?)),
            "notin" => Ok(LabelTest::NotIn(self.set()?)),
            "not" => {
                self.keyword("in")?;
                Ok(LabelTest::NotIn(self.set()?))
            }
            "contains" => Ok(LabelTest::Contains(self.text()?)),
            "starts" => {
                self.keyword("with")?;
                Ok(LabelTest::Begins(self.text()?))
            }
            "ends" => {
                self.keyword("with")?;
                Ok(LabelTest::Ends(self.text()?))
            }
            other => Err(format!("'{other}' is not a known operator")),
        }
    }

    /// `{'a', 'b'}`, possibly empty, possibly with a comma behind the last.
    fn set(&mut self) -> Result<Vec<String>, String> {
        self.expect("{")?;
        let mut values = Vec::new();
        while !self.take("}") {
            values.push(self.text()?);
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(values)
    }

    /// A text in single or double quotes; the language has no escapes.
    fn text(&mut self) -> Result<String, String> {
        let rest = self.rest.trim_start();
        let quote =
            rest.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("a quoted text is missing")?;
        let (text, rest) = rest[1..].split_once(quote).ok_or("a quote is not closed")?;
        self.rest = rest;
        Ok(text.to_owned())
    }

    /// A label's key or an operator in letters.
    fn word(&mut self) -> Result<&'a str, String> {
        let rest = self.rest.trim_start();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        let end = rest.find(|c| !legal(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(match rest {
                "" => "it ends too early".to_owned(),
                _ => format!("unexpected '{rest}'"),
            });
        }
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        Ok(word)
    }

    fn keyword(&mut self, wanted: &str) -> Result<(), String> {
        match self.word()? {
            word if word == wanted => Ok(()),
            word => Err(format!("found '{word}', expected '{wanted}'")),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let taken = self.rest.trim_start().strip_prefix(token);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        Err(format!("'{token}' is missing before '{}'", self.rest.trim_start()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> Labels {
        [("rack", "r1"), ("kubernetes.io/os", "linux"), ("in", "x")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn selectors_that_calico_accepts() {
        for (text, expected) in [
            ("", true),
            ("all()", true),
            ("global( )", true),
            ("!all()", false),
            ("rack == 'r1'", true),
            ("rack==\"r2\"", false),
            ("rack != 'r2'", true),
            ("zone != 'z'", true),
            ("has(rack) && !has(zone)", true),
            ("has(zone) || rack in {'r1','r2'}", true),
            ("rack not in { 'r1' }", false),
            ("zone not in {'a'}", true),
            ("rack in {}", false),
            ("kubernetes.io/os == 'linux' && (rack == 'x' || !(rack == 'y'))", true),
            ("rack starts with 'r' && rack ends with '1' && rack contains 'r1'", true),
            ("in == 'x'", true),
            ("!!has(rack)", true),
            ("has(zone) && has(rack) || all()", true),
            ("rack notin {'r2',}", true),
            ("rack in {'r1',}", true),
        ] {
            assert_eq!(selects(text, &labels()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_unknown_selector_is_refused_with_its_reason() {
        for text in [
            "rack",
            "rack =",
            "rack == r1",
            "rack ~ 'x'",
            "has(rack",
            "all() all()",
            "rack like 'x'",
            "'",
            "&&",
        ] {
            let error = selects(text, &labels()).unwrap_err();
            assert!(error.starts_with(&format!("selector '{text}': ")), "{error}");
        }
    }

    #[test]
    fn a_deeply_nested_selector_is_refused_and_does_not_overflow_the_stack() {
        let nested = |depth: usize| format!("{}all(){}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(selects(&nested(100), &labels()), Ok(true));
        assert_eq!(selects(&format!("{} && {}", nested(99), nested(99)), &labels()), Ok(true));
        let error = selects(&nested(1_000_000), &labels()).unwrap_err();
        assert_eq!(error.len(), 500);
    }

    #[test]
    fn the_fewest_changes_are_named() {
        let changes = |text: &str, wanted| parse(text).unwrap().changes(&labels(), wanted);
        let change = |key: &str, test, wanted| LabelChange { key: key.to_owned(), test, wanted };
        assert_eq!(changes("rack == 'r1'", true), Some(vec![]));
        assert_eq!(
            changes("rack == 'r1' && role == 'api'", true),
            Some(vec![change("role", LabelTest::Is("api".into()), true)])
        );
        assert_eq!(
            changes("(a == '1' && b == '2') || !has(rack)", true),
            Some(vec![change("rack", LabelTest::Present, false)])
        );
        assert_eq!(changes("!all()", true), None);
        assert_eq!(changes("!all() || has(a)", true), Some(vec![change("a", LabelTest::Present, true)]));
    }

    #[test]
    fn selectors_of_namespaces_have_their_own_keys_and_meanings() {
        let of = |text: &str| parse(text).unwrap();
        assert_eq!(of("a == '1' && !has(b)").prefixed("pcns."), of("pcns.a == '1' && !has(pcns.b)"));
        let (all, global) = (of("has(ns)"), of("!has(ns)"));
        assert_eq!(of("all() || !global()").meaning(&all, Some(&global)), of("has(ns) || !(!has(ns))"));
        assert_eq!(of("all() && global()").meaning(&all, None), of("has(ns) && global()"));
    }

    proptest! {
        #[test]
        fn tokens_in_any_order_do_not_panic(tokens in prop::collection::vec(prop::sample::select(vec![
            "(", ")", "!", "&&", "||", "==", "!=", "rack", "'r1'", "in", "not", "{", "}", ",", "has(", "all()", "starts", "with", "'", "\u{e9}",
        ]), 0..30)) {
            let _ = selects(&tokens.join(" "), &labels());
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,40}") {
            let _ = selects(&text, &labels());
        }
    }
}
