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
    if text.trim().is_empty() {
        return Ok(true);
    }
    let mut parser = Parser { rest: text, labels, depth: 0 };
    let result = parser.any().and_then(|selected| match parser.rest.trim_start() {
        "" => Ok(selected),
        rest => Err(format!("unexpected '{rest}'")),
    });
    result.map_err(|problem| format!("selector '{text}': {problem}").chars().take(LONGEST_MESSAGE).collect())
}

/// Whether the text is a selector; the error says what is not understood.
pub fn check(text: &str) -> Result<(), String> {
    selects(text, &Labels::new()).map(drop)
}

/// Parses and evaluates in one go; both sides of an operator are always parsed.
struct Parser<'a> {
    rest: &'a str,
    labels: &'a Labels,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<bool, String> {
        let mut selected = self.every()?;
        while self.take("||") {
            selected |= self.every()?;
        }
        Ok(selected)
    }

    fn every(&mut self) -> Result<bool, String> {
        let mut selected = self.negated()?;
        while self.take("&&") {
            selected &= self.negated()?;
        }
        Ok(selected)
    }

    fn negated(&mut self) -> Result<bool, String> {
        let mut negate = false;
        while !self.rest.trim_start().starts_with("!=") && self.take("!") {
            negate = !negate;
        }
        let selected = if self.take("(") {
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
        Ok(selected != negate)
    }

    fn test(&mut self) -> Result<bool, String> {
        let word = self.word()?;
        match word {
            "all" | "global" if self.take("(") => {
                self.expect(")")?;
                return Ok(true);
            }
            "has" if self.take("(") => {
                let key = self.word()?;
                self.expect(")")?;
                return Ok(self.labels.contains_key(key));
            }
            _ => {}
        }
        let value = self.labels.get(word).map(String::as_str);
        self.comparison(value)
    }

    fn comparison(&mut self, value: Option<&str>) -> Result<bool, String> {
        if self.take("==") {
            let wanted = self.text()?;
            return Ok(value == Some(wanted));
        }
        if self.take("!=") {
            let unwanted = self.text()?;
            return Ok(value != Some(unwanted));
        }
        match self.word()? {
            "in" => {
                let set = self.set()?;
                Ok(value.is_some_and(|value| set.contains(&value)))
            }
            "not" => {
                self.keyword("in")?;
                let set = self.set()?;
                Ok(!value.is_some_and(|value| set.contains(&value)))
            }
            "contains" => {
                let part = self.text()?;
                Ok(value.is_some_and(|value| value.contains(part)))
            }
            "starts" => {
                self.keyword("with")?;
                let start = self.text()?;
                Ok(value.is_some_and(|value| value.starts_with(start)))
            }
            "ends" => {
                self.keyword("with")?;
                let end = self.text()?;
                Ok(value.is_some_and(|value| value.ends_with(end)))
            }
            other => Err(format!("'{other}' is not a known operator")),
        }
    }

    /// `{'a', 'b'}`, possibly empty.
    fn set(&mut self) -> Result<Vec<&'a str>, String> {
        self.expect("{")?;
        let mut values = Vec::new();
        if self.take("}") {
            return Ok(values);
        }
        loop {
            values.push(self.text()?);
            if !self.take(",") {
                self.expect("}")?;
                return Ok(values);
            }
        }
    }

    /// A text in single or double quotes; the language has no escapes.
    fn text(&mut self) -> Result<&'a str, String> {
        let rest = self.rest.trim_start();
        let quote =
            rest.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("a quoted text is missing")?;
        let (text, rest) = rest[1..].split_once(quote).ok_or("a quote is not closed")?;
        self.rest = rest;
        Ok(text)
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
