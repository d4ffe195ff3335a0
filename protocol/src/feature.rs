//! What a session may be granted. Each feature is also an RBAC verb on `workloads.mirrord.dev`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One right of a session; the wire, the `Session` object and RBAC use the same word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Read the environment, values from Secrets included.
    Env,
    /// Read files, but for mounted Secrets and tokens.
    Files,
    /// Read mounted Secrets and tokens as well.
    Secrets,
    /// Connect and resolve names from the pod.
    Outgoing,
    /// A feature of another release: never granted, never an error.
    #[serde(other)]
    Unknown,
}

impl Feature {
    /// All features that this release can grant.
    pub const ALL: [Self; 4] = [Self::Env, Self::Files, Self::Secrets, Self::Outgoing];

    /// The RBAC verb, and the word on the wire.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Files => "files",
            Self::Secrets => "secrets",
            Self::Outgoing => "outgoing",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())
    }
}

/// A word that is no feature.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown feature {0:?}: one of env, files, secrets, outgoing")]
pub struct UnknownFeature(String);

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|feature| feature.verb() == word)
            .ok_or_else(|| UnknownFeature(word.to_owned()))
    }
}
