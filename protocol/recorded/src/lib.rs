//! What releases said, kept so that the present one can be tested against each that is still supported. Tests only.
//!
//! `releases/X.Y/` holds what was recorded when X.Y was made, and is never changed again: `SHA256SUMS` has the hash of every
//! file. `session.txt` and `boot.txt` are conversations, one stream each, between who dials (`>`, the client or the control
//! plane) and the sidecar (`<`); the JSON files are objects as the API server stored them. `README.md` there says how the next
//! release is recorded.
//!
//! | module | what it holds |
//! |---|---|
//! | [`conversation`] | the text form of recorded streams |
//! | [`compare`] | whether a message still holds all that an older reader looks for; messages of a later release |
#![forbid(unsafe_code)]

pub mod compare;
pub mod conversation;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use compare::{keeps, later, replace};
pub use conversation::{Conversation, Frame, Said, Side, Turn};

/// What was recorded of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release(PathBuf);

/// Where all releases are.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("releases")
}

/// All recorded releases, the oldest first.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn releases() -> Vec<Release> {
    let found = fs::read_dir(folder()).expect("the recorded releases").flatten();
    let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    assert!(!found.is_empty(), "no release is recorded");
    found.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>()
    });
    found.into_iter().map(Release).collect()
}

/// The release that is to be recorded now (`RECORD=0.2`); else tests play what was recorded.
#[must_use]
pub fn to_be_recorded() -> Option<Release> {
    let name = std::env::var("RECORD").ok()?;
    Some(Release(folder().join(name)))
}

impl Release {
    /// Its number.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A file's text.
    ///
    /// # Panics
    /// Where it isn't there.
    #[must_use]
    pub fn text(&self, file: &str) -> String {
        let path = self.0.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A file's conversations.
    ///
    /// # Panics
    /// Where it isn't there, or isn't of the form.
    #[must_use]
    pub fn conversations(&self, file: &str) -> Vec<Conversation> {
        conversation::read(&self.text(file))
    }

    /// Writes a file of conversations.
    ///
    /// # Panics
    /// Where it can't be written.
    pub fn record(&self, file: &str, about: &str, conversations: &[Conversation]) {
        fs::create_dir_all(&self.0).expect("made");
        fs::write(self.0.join(file), conversation::write(about, conversations)).expect("written");
    }
}
