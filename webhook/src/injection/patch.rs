//! A JSON Patch (RFC 6902) that only adds.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Operations in their order.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Patch(Vec<Add>);

#[derive(Debug, Serialize)]
#[serde(tag = "op", rename = "add")]
struct Add {
    path: Cow<'static, str>,
    value: Box<RawValue>,
}

impl Patch {
    /// Adds a value at a JSON pointer.
    pub(super) fn add<T: Serialize + ?Sized>(
        &mut self,
        path: impl Into<Cow<'static, str>>,
        value: &T,
    ) -> serde_json::Result<()> {
        self.0.push(Add { path: path.into(), value: to_raw_value(value)? });
        Ok(())
    }

    /// Appends to a list, which has to be made where it is absent (RFC 6902 §4.1: the parent must exist).
    pub(super) fn append<T: Serialize>(
        &mut self,
        list: &'static str,
        exists: bool,
        values: &[T],
    ) -> serde_json::Result<()> {
        if !exists {
            return self.add(list, values);
        }
        values.iter().try_for_each(|value| self.add(format!("{list}/-"), value))
    }

    /// Sets entries of a map of strings, which has to be made where it is absent.
    pub(super) fn set(
        &mut self,
        map: &'static str,
        exists: bool,
        entries: &[(&str, String)],
    ) -> serde_json::Result<()> {
        if !exists {
            let entries: serde_json::Map<_, _> =
                entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
            return self.add(map, &entries);
        }
        entries.iter().try_for_each(|(key, value)| self.add(format!("{map}/{}", escape(key)), value))
    }

    /// The patch as JSON.
    ///
    /// # Errors
    /// When serde fails at it, which its types exclude.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

/// RFC 6901 §3.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_slashes_are_escaped() {
        let mut patch = Patch::default();
        patch.set("/metadata/annotations", true, &[("a/b~c", "x".into())]).unwrap();
        let json = String::from_utf8(patch.to_json().unwrap()).unwrap();
        assert_eq!(json, r#"[{"op":"add","path":"/metadata/annotations/a~1b~0c","value":"x"}]"#);
    }

    #[test]
    fn what_is_absent_is_made_whole() {
        let mut patch = Patch::default();
        patch.append("/spec/volumes", false, &[1, 2]).unwrap();
        patch.append("/spec/volumes", true, &[3]).unwrap();
        let json = String::from_utf8(patch.to_json().unwrap()).unwrap();
        assert_eq!(
            json,
            r#"[{"op":"add","path":"/spec/volumes","value":[1,2]},{"op":"add","path":"/spec/volumes/-","value":3}]"#
        );
    }
}
