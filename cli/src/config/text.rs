//! JSON with positions, checked against the table of keys.
//!
//! `jsonc-parser` gives each name and value its range (of the parsers with ranges it is the one in daily use, in dprint
//! and Deno); comments and trailing commas pass, everything else is JSON by the book. The tree is walked along with the
//! table of keys: what fits becomes a flat list of values with their places, everything else becomes a [`Mistake`].

use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{Object, Value},
    common::{Range, Ranged},
    parse_to_ast,
};

use super::{
    Mistake,
    keys::{self, Kind},
};
use crate::nearest::{LIKELY, nearest};

/// A value that fits its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Text`] or [`Kind::Choice`].
    Text(String),
    /// Of [`Kind::Words`].
    Words(Vec<String>),
    /// Of [`Kind::Map`].
    Map(Vec<Pair>),
}

/// One row of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where the name stands.
    pub place: Place,
}

/// Values by path, and where they stand.
#[derive(Debug, Default)]
pub struct Values {
    found: Vec<(String, Given, Place)>,
    /// What didn't fit.
    pub mistakes: Vec<Mistake>,
}

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    line: usize,
    column: usize,
}

impl Place {
    /// A mistake there.
    #[must_use]
    pub fn mistake(self, message: impl Into<String>) -> Mistake {
        Mistake { line: self.line, column: self.column, message: message.into() }
    }
}

impl Values {
    /// The value of a path, and its place.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<(&Given, Place)> {
        self.found.iter().find(|(key, ..)| key == path).map(|(_, given, place)| (given, *place))
    }

    /// The string at a path.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<(&str, Place)> {
        match self.get(path) {
            Some((Given::Text(text), place)) => Some((text, place)),
            _ => None,
        }
    }

    /// The switch at a path.
    #[must_use]
    pub fn switch(&self, path: &str) -> Option<(bool, Place)> {
        match self.get(path) {
            Some((Given::Switch(on), place)) => Some((*on, place)),
            _ => None,
        }
    }

    /// The rows at a path; none where it isn't there.
    #[must_use]
    pub fn rows(&self, path: &str) -> &[Pair] {
        match self.get(path) {
            Some((Given::Map(rows), _)) => rows,
            _ => &[],
        }
    }

    /// The words at a path; none where it isn't there.
    #[must_use]
    pub fn words(&self, path: &str) -> Vec<String> {
        match self.get(path) {
            Some((Given::Words(words), _)) => words.clone(),
            _ => Vec::new(),
        }
    }
}

/// Reads a text.
#[must_use]
pub fn read(text: &str) -> Values {
    let mut reader = Reader { text, values: Values::default() };
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    match parse_to_ast(text, &CollectOptions::default(), &options) {
        Err(error) => reader.report(error.range(), format!("this is no JSON: {}", error.kind())),
        Ok(parsed) => match parsed.value {
            Some(Value::Object(object)) => reader.object("", &object),
            Some(other) => reader.report(other.range(), "the configuration must be an object: {…}"),
            None => {}
        },
    }
    reader.values.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    reader.values
}

struct Reader<'a> {
    text: &'a str,
    values: Values,
}

impl Reader<'_> {
    fn place(&self, range: Range) -> Place {
        let before = self.text.get(..range.start).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }

    fn report(&mut self, range: Range, message: impl Into<String>) {
        let mistake = self.place(range).mistake(message);
        self.values.mistakes.push(mistake);
    }

    fn object(&mut self, path: &str, object: &Object<'_>) {
        let known = keys::below(path);
        let mut seen = Vec::new();
        for property in &object.properties {
            let name = property.name.as_str();
            let full = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            if !known.contains(&name) {
                self.report(property.name.range(), unknown(name, path, &known));
            } else if seen.contains(&name) {
                self.report(property.name.range(), format!("{full:?} stands here twice"));
            } else {
                seen.push(name);
                self.value(&full, &property.value);
            }
        }
    }

    fn value(&mut self, path: &str, value: &Value<'_>) {
        let kinds = keys::find(path).map_or(&[][..], |key| key.kinds);
        let nested = !keys::below(path).is_empty();
        match value {
            // As if it weren't there, as most readers of JSON have it.
            Value::NullKeyword(_) => {}
            Value::Object(object) if nested => self.object(path, object),
            _ => match kinds.iter().find_map(|kind| self.fits(*kind, value)) {
                Some(given) => {
                    let place = self.place(value.range());
                    self.values.found.push((path.to_owned(), given, place));
                }
                None => self.report(value.range(), format!("{path:?} must be {}", expected(kinds, nested))),
            },
        }
    }

    fn fits(&self, kind: Kind, value: &Value<'_>) -> Option<Given> {
        match (kind, value) {
            (Kind::Switch, Value::BooleanLit(on)) => Some(Given::Switch(on.value)),
            (Kind::Text, Value::StringLit(text)) => Some(Given::Text(text.value.to_string())),
            (Kind::Choice(words), Value::StringLit(text)) => {
                words.contains(&&*text.value).then(|| Given::Text(text.value.to_string()))
            }
            (Kind::Words, Value::StringLit(text)) => Some(Given::Words(
                text.value.split(';').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            )),
            (Kind::Words, Value::Array(list)) => {
                let word = |value: &Value<'_>| value.as_string_lit().map(|text| text.value.to_string());
                list.elements.iter().map(word).collect::<Option<_>>().map(Given::Words)
            }
            (Kind::Map, Value::Object(object)) => {
                let pair = |property: &jsonc_parser::ast::ObjectProp<'_>| {
                    let (name, value) = (property.name.as_str(), &property.value.as_string_lit()?.value);
                    let place = self.place(property.name.range());
                    Some(Pair { name: name.to_owned(), value: value.to_string(), place })
                };
                object.properties.iter().map(pair).collect::<Option<_>>().map(Given::Map)
            }
            _ => None,
        }
    }
}

fn expected(kinds: &[Kind], nested: bool) -> String {
    let word = |kind: &Kind| match kind {
        Kind::Switch => "true or false".to_owned(),
        Kind::Text => "a string".to_owned(),
        Kind::Choice(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
        Kind::Words => "a string of words separated by \";\", or a list of strings".to_owned(),
        Kind::Map => "an object whose values are strings".to_owned(),
    };
    let object = nested.then(|| "an object".to_owned());
    kinds.iter().map(word).chain(object).collect::<Vec<_>>().join(", or ")
}

fn unknown(name: &str, path: &str, known: &[&str]) -> String {
    let place = if path.is_empty() { String::new() } else { format!(" in {path:?}") };
    let nested = keys::meant_by(name).filter(|_| path.is_empty()).and_then(|meant| meant.rsplit_once('.'));
    if let Some((object, last)) = nested {
        return format!("unknown key {name:?}, did you mean {last:?} in {object:?}?");
    }
    match nearest(name, known.iter().copied(), LIKELY) {
        Some(nearest) => format!("unknown key {name:?}{place}, did you mean {nearest:?}?"),
        None => {
            let names: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
            format!("unknown key {name:?}{place}; there are {}", names.join(", "))
        }
    }
}
