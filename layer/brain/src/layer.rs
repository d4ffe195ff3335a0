//! The layer of one process: settings, rules, the table of descriptors and the way to the proxy.
//!
//! Operations on it are in [`crate::files`], [`crate::network`], [`crate::names`] and [`crate::exec`]. Each answers
//! what it did, or [`Instead`]: the front then makes the program's original call, or fails with an errno.

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use mirrord_protocol::reply::Failure;

use crate::{
    conversation::Level,
    descriptors::Table,
    proxy::{AskError, Proxy},
    rules::Rules,
    settings::{self, Settings, SettingsError},
    sys::{self, Errno},
};

/// What a front does where the layer does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// The program's call as it is.
    Local,
    /// The program's call, but with this absolute path: it came relative to a remote folder.
    LocalAt(CString),
    /// Nothing: the call fails.
    Fail(Errno),
}

/// An operation's outcome.
pub type Handled<T> = Result<T, Instead>;

impl From<Errno> for Instead {
    fn from(errno: Errno) -> Self {
        Self::Fail(errno)
    }
}

/// What a failed question means for a program that asked for a file.
impl From<AskError> for Instead {
    fn from(error: AskError) -> Self {
        Self::Fail(errno_of(&error, libc::EIO))
    }
}

/// The errno of a failed question; `ended` where the session is over.
pub(crate) fn errno_of(error: &AskError, ended: i32) -> Errno {
    match error {
        AskError::Failed(Failure { errno: Some(errno), .. }) => Errno(*errno),
        AskError::Failed(_) => Errno(libc::EIO),
        AskError::Ended(_) => Errno(ended),
        AskError::NoDescriptor => Errno(libc::EMFILE),
    }
}

/// The layer of one process.
#[derive(Debug)]
pub struct Layer {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) proxy: Proxy,
    /// What the program's remote descriptors are.
    pub table: Table,
    pub(crate) folder: WorkingFolder,
    pub(crate) warned_read_only: AtomicBool,
    pub(crate) allow_local: bool,
    pub(crate) host: String,
    pub(crate) environment: crate::exec::Own,
}

/// Whether a relative path can be remote: not, where all in the working folder is local. Remembered from one
/// relative path to the next, until chdir(2).
#[derive(Debug, Default)]
pub(crate) struct WorkingFolder {
    /// A count of changes, and in the lowest two bits what is known: 0 nothing, 1 all local, 2 not so.
    state: AtomicU64,
}

impl WorkingFolder {
    const KNOWN: u64 = 3;

    /// chdir(2) happened, or is about to.
    pub(crate) fn changed(&self) {
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some((state | Self::KNOWN).wrapping_add(1))
        });
    }

    /// What is known, or what `look` finds.
    pub(crate) fn is_local(&self, look: impl FnOnce() -> Option<bool>) -> bool {
        let state = self.state.load(Ordering::Acquire);
        match state & Self::KNOWN {
            1 => true,
            2 => false,
            _ => match look() {
                Some(local) => {
                    // Where it changed meanwhile, what was found is forgotten.
                    let found = state | if local { 1 } else { 2 };
                    let _ = self.state.compare_exchange(state, found, Ordering::AcqRel, Ordering::Relaxed);
                    local
                }
                None => false,
            },
        }
    }
}

impl Layer {
    /// The layer of a process with these settings. `inherited` is the value of [`settings::DESCRIPTORS`].
    ///
    /// # Errors
    /// [`SettingsError::Unloadable`].
    pub fn new(
        settings: Settings,
        inherited: Option<&[u8]>,
        allow_local: bool,
    ) -> Result<Self, SettingsError> {
        let layer = Self {
            rules: Rules::new(&settings),
            proxy: Proxy::new(settings.proxy.clone()),
            table: Table::default(),
            folder: WorkingFolder::default(),
            warned_read_only: AtomicBool::new(false),
            allow_local,
            host: sys::host_name(),
            environment: crate::exec::Own::new(&settings)?,
            settings,
        };
        crate::exec::inherit(&layer.table, inherited.unwrap_or_default());
        Ok(layer)
    }

    /// The layer that a process's environment asks for; `None` where it doesn't.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, SettingsError> {
        let Some(text) = get(settings::VARIABLE) else { return Ok(None) };
        let allow_local = get(settings::ALLOW_LOCAL).is_some_and(|value| value.as_bytes() == b"1");
        let inherited = get(settings::DESCRIPTORS).map(OsStringExt::into_vec);
        Self::new(Settings::decode(&text)?, inherited.as_deref(), allow_local).map(Some)
    }

    /// The working folder changes.
    pub fn folder_changed(&self) {
        self.folder.changed();
    }

    /// To be called in the child of a fork(2) that copied memory.
    pub fn after_fork(&self) {
        self.proxy.after_fork();
    }

    /// Whether the working folder and all below it is local.
    pub(crate) fn is_folder_local(&self) -> bool {
        self.folder.is_local(|| {
            let mut buffer = [0; libc::PATH_MAX as usize];
            let folder = sys::working_directory(&mut buffer).ok()?;
            let local = self.rules.is_local_throughout(folder);
            // What a vfork's child finds is its own folder, but would be remembered for its parent.
            if self.proxy.is_own_process() { Some(local) } else { None }
        })
    }

    pub(crate) fn warn(&self, text: String) {
        self.proxy.log(Level::Warning, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_the_working_folder_lasts_until_it_changes() {
        let folder = WorkingFolder::default();
        assert!(folder.is_local(|| Some(true)));
        assert!(folder.is_local(|| panic!("asked again")));
        folder.changed();
        assert!(!folder.is_local(|| Some(false)));
        assert!(!folder.is_local(|| panic!("asked again")));
    }

    #[test]
    fn a_change_while_looking_is_not_overwritten() {
        let folder = WorkingFolder::default();
        folder.is_local(|| {
            folder.changed();
            Some(true)
        });
        assert!(!folder.is_local(|| Some(false)));
    }

    #[test]
    fn without_settings_there_is_no_layer() {
        assert!(Layer::from_environment(|_| None).unwrap().is_none());
        let broken = |name: &str| (name == settings::VARIABLE).then(|| "proxy".into());
        assert!(Layer::from_environment(broken).is_err());
    }
}
