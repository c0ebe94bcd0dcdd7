//! Reading JSON so that every error names the field it is about, `container.docker.image`.

use serde_json::{Map, Value};

use super::AppError;

/// An object, and how to get there from the top.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: Path<'a>,
}

/// The way to a value, kept on the stack and written out only for an error.
#[derive(Debug, Clone, Copy)]
enum Path<'a> {
    Top,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn text(&self) -> String {
        match self {
            Path::Top => String::new(),
            Path::Field(Path::Top, name) => (*name).to_owned(),
            Path::Field(outer, name) => format!("{}.{name}", outer.text()),
            Path::Index(outer, index) => format!("{}[{index}]", outer.text()),
        }
    }
}

fn wrong<T>(path: Path<'_>, expected: &str, found: &Value) -> Result<T, AppError> {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Err(AppError::field(path.text(), format!("must be {expected}, not {kind}")))
}

impl<'a> Fields<'a> {
    pub fn top(value: &'a Value) -> Result<Self, AppError> {
        match value {
            Value::Object(map) => Ok(Self { map, path: Path::Top }),
            _ => Err(AppError::NotAnApp),
        }
    }

    /// An error about one of the object's fields.
    pub fn error(&self, name: &str, problem: impl Into<String>) -> AppError {
        AppError::field(Path::Field(&self.path, name).text(), problem)
    }

    /// How many elements a list has; 0 for one that is not there.
    pub fn length(&self, name: &str) -> Result<usize, AppError> {
        self.list(name).map(<[Value]>::len)
    }

    /// `null` counts as not there.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn names(&self) -> impl Iterator<Item = &'a String> {
        self.map.keys()
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, AppError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => {
                Err(self.error(name, "must not hold a NUL character"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => wrong(Path::Field(&self.path, name), "a string", other),
        }
    }

    pub fn required_text(&self, name: &str) -> Result<&'a str, AppError> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.error(name, "is missing")),
        }
    }

    /// One of a few words, as it stands in `words`: Marathon reads its enumerations in any case.
    pub fn word(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, AppError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Ok(Some(word)),
            None => {
                Err(self.error(name, format!("'{text}' is unknown: it must be one of {}", words.join(", "))))
            }
        }
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, AppError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => wrong(Path::Field(&self.path, name), "true or false", other),
        }
    }

    /// A number that is not negative.
    pub fn number(&self, name: &str) -> Result<Option<f64>, AppError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_f64().filter(|number| *number >= 0.0) {
                Some(number) => Ok(Some(number)),
                None => Err(self.error(name, "must not be negative")),
            },
            Some(other) => wrong(Path::Field(&self.path, name), "a number", other),
        }
    }

    /// A whole number from 0 to `max`.
    pub fn whole(&self, name: &str, max: u32) -> Result<Option<u32>, AppError> {
        match self.get(name) {
            None => Ok(None),
            Some(value @ Value::Number(_)) => whole(value, max)
                .map(Some)
                .ok_or_else(|| self.error(name, format!("must be a whole number from 0 to {max}"))),
            Some(other) => wrong(Path::Field(&self.path, name), "a number", other),
        }
    }

    pub fn port(&self, name: &str) -> Result<Option<u16>, AppError> {
        Ok(self.whole(name, u16::MAX.into())?.and_then(|port| u16::try_from(port).ok()))
    }

    pub fn texts(&self, name: &str) -> Result<Vec<String>, AppError> {
        let path = Path::Field(&self.path, name);
        let text = |(index, value): (usize, &Value)| match value {
            Value::String(text) => Ok(text.clone()),
            other => wrong(Path::Index(&path, index), "a string", other),
        };
        self.list(name)?.iter().enumerate().map(text).collect()
    }

    pub fn ports(&self, name: &str) -> Result<Vec<u16>, AppError> {
        let path = Path::Field(&self.path, name);
        let port = |(index, value): (usize, &Value)| {
            let port = whole(value, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
            port.ok_or_else(|| AppError::field(Path::Index(&path, index).text(), "must be a port"))
        };
        self.list(name)?.iter().enumerate().map(port).collect()
    }

    /// Each element of a list of objects.
    pub fn objects<T>(
        &self,
        name: &str,
        mut read: impl FnMut(Fields<'_>) -> Result<T, AppError>,
    ) -> Result<Vec<T>, AppError> {
        let path = Path::Field(&self.path, name);
        let mut all = Vec::new();
        for (index, value) in self.list(name)?.iter().enumerate() {
            let path = Path::Index(&path, index);
            match value {
                Value::Object(map) => all.push(read(Fields { map, path })?),
                other => return wrong(path, "an object", other),
            }
        }
        Ok(all)
    }

    /// The object in a field.
    pub fn object<T>(
        &self,
        name: &str,
        read: impl FnOnce(Fields<'_>) -> Result<T, AppError>,
    ) -> Result<Option<T>, AppError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => read(Fields { map, path: Path::Field(&self.path, name) }).map(Some),
            Some(other) => wrong(Path::Field(&self.path, name), "an object", other),
        }
    }

    fn list(&self, name: &str) -> Result<&'a [Value], AppError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => wrong(Path::Field(&self.path, name), "a list", other),
        }
    }
}

fn whole(value: &Value, max: u32) -> Option<u32> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
    // The comparison has bounded it: nothing is cut off.
    (0.0..=f64::from(max)).contains(&number).then_some(number as u32)
}
