//! What `mirrord exec` tells the layer: one environment variable, `MIRRORD_SETTINGS`.
//!
//! It holds `key=value` pairs joined by `;`, lists joined by `:`, everything else percent-encoded: readable in
//! `/proc/PID/environ`, and any path fits. Unknown keys are skipped, so that a newer CLI can start an older layer.
//! The variable and `LD_PRELOAD` are all that a program needs to be under mirrord; the layer puts both back when a
//! program clears its environment before it starts another.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Holds the [`Settings`].
pub const VARIABLE: &str = "MIRRORD_SETTINGS";
/// The user's: `1` lets programs run that mirrord can't enter, locally.
pub const ALLOW_LOCAL: &str = "MIRRORD_ALLOW_LOCAL";
/// Holds what a program's descriptors are, across execve(2). The layer's own business.
pub const DESCRIPTORS: &str = "MIRRORD_DESCRIPTORS";
/// The dynamic linker's list of libraries to load first, see ld.so(8).
pub const PRELOAD: &str = "LD_PRELOAD";

/// Everything that the layer needs to know before its first question to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Unix socket (`SOCK_STREAM`) of the proxy.
    pub proxy: PathBuf,
    /// The preload library itself. Neither colon nor white space: they separate names in `LD_PRELOAD`.
    pub layer: PathBuf,
    /// Which files are remote.
    pub files: FileMode,
    /// Whether TCP connections and look-ups of names go through the pod.
    pub outgoing: bool,
    /// Mount points of the pod's volumes: remote even below a folder that is local by rule.
    pub remote_mounts: Vec<PathBuf>,
    /// Folders that stay local with all below: the user's home, the folder `mirrord exec` was called in. `/` is
    /// ignored, it would make everything local.
    pub local_trees: Vec<PathBuf>,
}

/// Which files are remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileMode {
    /// All but what the built-in rules keep local, for reading; writing there fails.
    #[default]
    Read,
    /// None.
    Local,
    /// Only what lies below `remote_mounts`.
    LocalWithOverrides,
}

impl FileMode {
    /// Its name in settings and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Local => "local",
            Self::LocalWithOverrides => "localwithoverrides",
        }
    }
}

/// Why a text holds no settings.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A part isn't `key=value`, or not properly escaped.
    #[error("{0:?} is not a key=value pair")]
    Malformed(String),
    /// A key that can't be left out.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value outside its set.
    #[error("{key} can't be {value:?}")]
    Value {
        /// Whose value.
        key: &'static str,
        /// What was found.
        value: String,
    },
    /// Such a library can't be preloaded.
    #[error("{0:?} can't be preloaded: LD_PRELOAD takes no path with colons or white space")]
    Unloadable(PathBuf),
}

impl Settings {
    /// As the value of [`VARIABLE`].
    #[must_use]
    pub fn encode(&self) -> OsString {
        let mut text = Vec::new();
        put(&mut text, "proxy", std::slice::from_ref(&self.proxy));
        put(&mut text, "layer", std::slice::from_ref(&self.layer));
        put(&mut text, "files", &[self.files.name()]);
        put(&mut text, "outgoing", &[if self.outgoing { "on" } else { "off" }]);
        put(&mut text, "mounts", &self.remote_mounts);
        put(&mut text, "trees", &self.local_trees);
        OsString::from_vec(text)
    }

    /// Reads the value of [`VARIABLE`].
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn decode(text: &OsStr) -> Result<Self, SettingsError> {
        let mut read = Parts::default();
        for pair in text.as_bytes().split(|byte| *byte == b';').filter(|pair| !pair.is_empty()) {
            read.take(pair)?;
        }
        Ok(Self {
            proxy: read.proxy.ok_or(SettingsError::Missing("proxy"))?,
            layer: read.layer.ok_or(SettingsError::Missing("layer"))?,
            files: read.files,
            outgoing: read.outgoing,
            remote_mounts: read.mounts,
            local_trees: read.trees,
        })
    }

    /// The variables that put a program under mirrord: set them, then execve(2). `preload` is what `LD_PRELOAD`
    /// holds already; it is kept, behind the layer.
    ///
    /// # Errors
    /// [`SettingsError::Unloadable`].
    pub fn variables(&self, preload: Option<&OsStr>) -> Result<[(&'static str, OsString); 2], SettingsError> {
        let separator = |byte: &u8| *byte == b':' || byte.is_ascii_whitespace();
        if self.layer.as_os_str().as_bytes().iter().any(separator) {
            return Err(SettingsError::Unloadable(self.layer.clone()));
        }
        let mut list = self.layer.clone().into_os_string();
        for other in preload.unwrap_or_default().as_bytes().split(separator) {
            if !other.is_empty() && other != self.layer.as_os_str().as_bytes() {
                list.push(":");
                list.push(OsStr::from_bytes(other));
            }
        }
        Ok([(VARIABLE, self.encode()), (PRELOAD, list)])
    }
}

/// Settings while they are read.
#[derive(Default)]
struct Parts {
    proxy: Option<PathBuf>,
    layer: Option<PathBuf>,
    files: FileMode,
    outgoing: bool,
    mounts: Vec<PathBuf>,
    trees: Vec<PathBuf>,
}

impl Parts {
    fn take(&mut self, pair: &[u8]) -> Result<(), SettingsError> {
        let malformed = || SettingsError::Malformed(String::from_utf8_lossy(pair).into_owned());
        let equals = pair.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        let values = list(value).ok_or_else(malformed)?;
        let first = || values.first().cloned().unwrap_or_default();
        match key {
            b"proxy" => self.proxy = Some(first()),
            b"layer" => self.layer = Some(first()),
            b"files" => self.files = file_mode(&first())?,
            b"outgoing" => self.outgoing = switch("outgoing", &first())?,
            b"mounts" => self.mounts = values,
            b"trees" => self.trees = values,
            _ => {}
        }
        Ok(())
    }
}

fn file_mode(value: &Path) -> Result<FileMode, SettingsError> {
    let modes = [FileMode::Read, FileMode::Local, FileMode::LocalWithOverrides];
    let unknown = || SettingsError::Value { key: "files", value: value.to_string_lossy().into_owned() };
    modes.into_iter().find(|mode| Path::new(mode.name()) == value).ok_or_else(unknown)
}

fn switch(key: &'static str, value: &Path) -> Result<bool, SettingsError> {
    match value.as_os_str().as_bytes() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(SettingsError::Value { key, value: value.to_string_lossy().into_owned() }),
    }
}

fn put<V: AsRef<OsStr>>(text: &mut Vec<u8>, key: &str, values: &[V]) {
    if !text.is_empty() {
        text.push(b';');
    }
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push(b':');
        }
        escape(value.as_ref().as_bytes(), text);
    }
}

/// Percent-encodes what separates pairs, lists and lines (RFC 3986 §2.1).
pub(crate) fn escape(bytes: &[u8], text: &mut Vec<u8>) {
    for &byte in bytes {
        if byte.is_ascii_graphic() && !b"%;:=,".contains(&byte) {
            text.push(byte);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 15)];
            text.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        }
    }
}

/// Undoes [`escape`]; `None` where a percent sign isn't followed by two hexadecimal digits.
pub(crate) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(bytes)
}

fn list(value: &[u8]) -> Option<Vec<PathBuf>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let path = |part| Some(PathBuf::from(OsString::from_vec(unescape(part)?)));
    value.split(|byte| *byte == b':').map(path).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        Settings {
            proxy: "/run/user/1000/mirrord/a b.sock".into(),
            layer: "/home/u/.cache/mirrord/layer.so".into(),
            files: FileMode::LocalWithOverrides,
            outgoing: true,
            remote_mounts: vec!["/data".into(), "/etc/app:1".into()],
            local_trees: vec!["/home/u".into(), OsString::from_vec(b"/w\xff;=%".to_vec()).into()],
        }
    }

    #[test]
    fn settings_survive_the_environment() {
        assert_eq!(Settings::decode(&settings().encode()), Ok(settings()));
    }

    #[test]
    fn empty_lists_stay_empty() {
        let plain = Settings { remote_mounts: vec![], local_trees: vec![], ..settings() };
        assert_eq!(Settings::decode(&plain.encode()), Ok(plain));
    }

    #[test]
    fn what_a_newer_release_adds_is_skipped() {
        let mut text = settings().encode();
        text.push(";colour=blue");
        assert_eq!(Settings::decode(&text), Ok(settings()));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = |text: &str| Settings::decode(OsStr::new(text)).unwrap_err();
        assert_eq!(error("layer=/l"), SettingsError::Missing("proxy"));
        assert_eq!(error("nonsense"), SettingsError::Malformed("nonsense".to_owned()));
        assert_eq!(error("proxy=%4"), SettingsError::Malformed("proxy=%4".to_owned()));
        assert_eq!(error("files=write"), SettingsError::Value { key: "files", value: "write".to_owned() });
    }

    #[test]
    fn the_layer_goes_in_front_of_other_libraries_and_only_once() {
        let [_, (_, list)] =
            settings().variables(Some(OsStr::new("a.so /home/u/.cache/mirrord/layer.so"))).unwrap();
        assert_eq!(list, "/home/u/.cache/mirrord/layer.so:a.so");
    }

    #[test]
    fn a_library_that_can_t_be_preloaded_is_refused() {
        let spaced = Settings { layer: "/My Files/layer.so".into(), ..settings() };
        assert!(matches!(spaced.variables(None), Err(SettingsError::Unloadable(_))));
    }

    proptest! {
        #[test]
        fn any_path_survives(bytes in proptest::collection::vec(1_u8.., 1..80)) {
            let path = PathBuf::from(OsString::from_vec(bytes));
            let some = Settings { local_trees: vec![path.clone(), path], ..settings() };
            prop_assert_eq!(Settings::decode(&some.encode()), Ok(some));
        }

        #[test]
        fn any_text_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Settings::decode(OsStr::from_bytes(&bytes));
        }
    }
}
