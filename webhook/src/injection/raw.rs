//! JSON that is looked at without being taken apart.
//!
//! What goes from the application container into its twin is copied as the API server wrote it, so that fields
//! newer than this build survive. [`Text`] borrows a string from the review's bytes; [`RawObject`] opens one level
//! of an object and keeps the values below it as they are.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::{RawValue, to_raw_value};

/// A string, borrowed unless it holds escapes. (serde borrows a `Cow` only where it is a field by itself.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// One level of an object, in its order.
#[derive(Clone, Debug)]
pub(super) struct RawObject<'a>(Vec<(Text<'a>, Cow<'a, RawValue>)>);

impl<'a> RawObject<'a> {
    /// The string under a key.
    pub(super) fn text(&self, key: &str) -> Option<Text<'_>> {
        serde_json::from_str(self.get(key)?.get()).ok()
    }

    /// The same object without a key.
    pub(super) fn without(mut self, key: &str) -> Self {
        self.0.retain(|(name, _)| &**name != key);
        self
    }

    /// The same object with a string under a key where that holds nothing (API objects mean "unset" by `""`).
    pub(super) fn with_text_if_unset(mut self, key: &'a str, text: &str) -> serde_json::Result<Self> {
        if self.text(key).is_none_or(|text| text.is_empty()) {
            self = self.without(key);
            self.0.push((Text(Cow::Borrowed(key)), Cow::Owned(to_raw_value(text)?)));
        }
        Ok(self)
    }

    /// The same object with the inner object under a key rewritten; unchanged where that is absent or no object.
    pub(super) fn map(
        mut self,
        key: &str,
        rewrite: impl FnOnce(RawObject<'_>) -> serde_json::Result<RawObject<'_>>,
    ) -> serde_json::Result<Self> {
        if let Some((_, value)) = self.0.iter_mut().find(|(name, _)| &**name == key) {
            let rewritten = match serde_json::from_str::<RawObject<'_>>(value.get()) {
                Ok(inner) => to_raw_value(&rewrite(inner)?)?,
                Err(_) => return Ok(self),
            };
            *value = Cow::Owned(rewritten);
        }
        Ok(self)
    }

    fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject<'de>, A::Error> {
                let mut entries = Vec::with_capacity(4);
                while let Some((key, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    entries.push((key, Cow::Borrowed(value)));
                }
                Ok(RawObject(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for RawObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, &**value)?;
        }
        map.end()
    }
}

/// Reads `null` as the default: Go writes an empty list that way.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_keeps_what_it_is_not_asked_about_to_the_byte() {
        let text = r#"{"name":"a","newer":{"x": [1, 2.50]},"mountPropagation":"None"}"#;
        let object: RawObject<'_> = serde_json::from_str(text).unwrap();
        let written = serde_json::to_string(&object.without("mountPropagation")).unwrap();
        assert_eq!(written, r#"{"name":"a","newer":{"x": [1, 2.50]}}"#);
    }

    #[test]
    fn a_name_is_filled_in_only_where_none_stands() {
        for (before, after) in [
            (
                r#"{"v":{"r":{"resource":"limits.cpu"}}}"#,
                r#"{"v":{"r":{"resource":"limits.cpu","c":"app"}}}"#,
            ),
            (r#"{"v":{"r":{"c":""}}}"#, r#"{"v":{"r":{"c":"app"}}}"#),
            (r#"{"v":{"r":{"c":"other"}}}"#, r#"{"v":{"r":{"c":"other"}}}"#),
            (r#"{"v":7}"#, r#"{"v":7}"#),
        ] {
            let object: RawObject<'_> = serde_json::from_str(before).unwrap();
            let object = object.map("v", |v| v.map("r", |r| r.with_text_if_unset("c", "app"))).unwrap();
            assert_eq!(serde_json::to_string(&object).unwrap(), after);
        }
    }
}
