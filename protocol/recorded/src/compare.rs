//! Compares messages by what a reader of another release takes from them, without that release's types: a reader skips names
//! that it doesn't know, and needs those that it knows, each with a value of the kind that it was.

use std::mem::discriminant;

use ciborium::Value;
use mirrord_protocol::{boot::CALLS, request::REQUESTS};

/// Names that stand for a choice among several messages, and are no field. The last is recorded as one that nobody knows.
const CHOICES: [&str; 7] = ["ok", "failed", "rights", "close", "V4", "V6", "teleport"];

/// Whether `present` holds all that a reader of `recorded` looks for: each field, with the same value. Of the fields named in
/// `differing` only the kind of value must be the same: times, numbers of the machine, sentences for people.
///
/// # Errors
/// Where they differ.
pub fn keeps(recorded: &Value, present: &Value, differing: &[&str]) -> Result<(), String> {
    compare(recorded, present, differing, "")
}

fn compare(recorded: &Value, present: &Value, differing: &[&str], at: &str) -> Result<(), String> {
    match (recorded, present) {
        (Value::Map(fields), Value::Map(others)) => fields.iter().try_for_each(|(name, value)| {
            let at = format!("{at}.{}", name.as_text().unwrap_or("?"));
            let Some((_, other)) = others.iter().find(|(other, _)| other == name) else {
                return Err(format!("{at} is gone"));
            };
            if name.as_text().is_some_and(|name| differing.contains(&name)) {
                same_kind(value, other, &at)
            } else {
                compare(value, other, differing, &at)
            }
        }),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            items.iter().zip(others).enumerate().try_for_each(|(index, (item, other))| {
                compare(item, other, differing, &format!("{at}[{index}]"))
            })
        }
        _ if recorded == present => Ok(()),
        _ => Err(format!("{at} was {recorded:?} and is {present:?}")),
    }
}

fn same_kind(recorded: &Value, present: &Value, at: &str) -> Result<(), String> {
    if discriminant(recorded) == discriminant(present) {
        Ok(())
    } else {
        Err(format!("{at} was of another kind: {recorded:?}, and is {present:?}"))
    }
}

/// Puts another value in place of each field of this name, at any depth.
pub fn replace(value: &mut Value, name: &str, with: &Value) {
    match value {
        Value::Map(fields) => fields.iter_mut().for_each(|(field, value)| {
            if field.as_text() == Some(name) {
                *value = with.clone();
            } else {
                replace(value, name, with);
            }
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, name, with)),
        _ => {}
    }
}

/// The message as a later release might send it: with a field more in each map that has fields.
#[must_use]
pub fn later(value: &Value) -> Value {
    match value {
        Value::Map(fields) => {
            let mut fields: Vec<(Value, Value)> =
                fields.iter().map(|(name, value)| (name.clone(), later(value))).collect();
            let choice = |(name, _): &(Value, Value)| name.as_text().is_some_and(is_choice);
            if !fields.first().is_some_and(choice) {
                let field = Value::Array(vec![1.into(), "x".into()]);
                fields.insert(0, ("of_a_later_release".into(), field));
            }
            Value::Map(fields)
        }
        Value::Array(items) => Value::Array(items.iter().map(later).collect()),
        other => other.clone(),
    }
}

fn is_choice(name: &str) -> bool {
    CHOICES.contains(&name) || REQUESTS.contains(&name) || CALLS.contains(&name)
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::*;

    #[test]
    fn more_is_the_same_to_an_old_reader_and_less_or_other_is_not() {
        let recorded = cbor!({ "ok" => { "size" => 7, "ino" => 1, "list" => [{ "a" => true }] } }).unwrap();
        assert_eq!(keeps(&recorded, &later(&recorded), &[]), Ok(()));
        let judge = |present: Value| keeps(&recorded, &present, &["ino"]).unwrap_err();
        let gone = cbor!({ "ok" => { "ino" => 2, "list" => [{ "a" => true }] } }).unwrap();
        assert_eq!(judge(gone), ".ok.size is gone");
        let other = cbor!({ "ok" => { "size" => 7, "ino" => 2, "list" => [{ "a" => false }] } }).unwrap();
        assert_eq!(judge(other), ".ok.list[0].a was Bool(true) and is Bool(false)");
        let kind = cbor!({ "ok" => { "size" => 7, "ino" => "2", "list" => [{ "a" => true }] } }).unwrap();
        assert!(judge(kind).starts_with(".ok.ino was of another kind"));
        let failed = cbor!({ "failed" => { "code" => 1 } }).unwrap();
        assert_eq!(judge(failed), ".ok is gone");
    }

    #[test]
    fn a_field_is_replaced_at_any_depth() {
        let mut value = cbor!({ "install" => { "keys" => [{ "key" => 1 }], "key" => 2 } }).unwrap();
        replace(&mut value, "key", &3.into());
        assert_eq!(value, cbor!({ "install" => { "keys" => [{ "key" => 3 }], "key" => 3 } }).unwrap());
    }
}
