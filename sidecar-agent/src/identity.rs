//! Who this sidecar is: the folder that the webhook mounts, with the files `uid`, `name` and `namespace` (downward
//! API) and `token` (projected, bound to the pod).
//!
//! Before boot only the uid is read, because the route id comes from it. The token is read anew each time it is
//! asked for: kubelet renews it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mirrord_protocol::route::RouteId;
use thiserror::Error;

/// A token file above this size is no token, in bytes.
const TOKEN_BYTES: u64 = 64 * 1024;

/// Who this sidecar is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    folder: PathBuf,
    /// The pod's uid.
    pub(crate) pod_uid: String,
    /// The container whose twin this is.
    pub(crate) container: String,
    /// Where its packets go.
    pub(crate) route: RouteId,
}

/// Why the identity could not be read.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// The file can't be read.
    #[error("reading {}: {error}; --identity must name the folder that the webhook mounted", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    /// The file is there, but makes no sense.
    #[error("{} is empty or not what it should be", path.display())]
    Senseless { path: PathBuf },
}

impl Identity {
    /// Reads what is needed before boot.
    pub(crate) fn load(folder: &Path, container: &str) -> Result<Self, IdentityError> {
        let pod_uid = line(folder, "uid")?;
        let route = RouteId::of(&pod_uid, container);
        Ok(Self { folder: folder.into(), pod_uid, container: container.into(), route })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The token as it is now.
    pub(crate) fn token(&self) -> Result<Vec<u8>, IdentityError> {
        let path = self.folder.join("token");
        let size = fs::metadata(&path)
            .map_err(|error| IdentityError::Unreadable { path: path.clone(), error })?
            .len();
        if size > TOKEN_BYTES {
            return Err(IdentityError::Senseless { path });
        }
        let token =
            fs::read(&path).map_err(|error| IdentityError::Unreadable { path: path.clone(), error })?;
        let token = token.trim_ascii();
        if token.is_empty() { Err(IdentityError::Senseless { path }) } else { Ok(token.to_vec()) }
    }

    /// `namespace/name` of the pod, for logs.
    pub(crate) fn pod(&self) -> String {
        let file = |name| line(&self.folder, name).unwrap_or_else(|_| "?".into());
        format!("{}/{}", file("namespace"), file("name"))
    }
}

/// A file of one line.
fn line(folder: &Path, name: &str) -> Result<String, IdentityError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Err(IdentityError::Senseless { path }),
        Ok(text) => Ok(text.trim().into()),
        Err(error) => Err(IdentityError::Unreadable { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_comes_from_uid_and_container() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("uid"), "1b2c\n")?;
        let identity = Identity::load(folder.path(), "app").expect("readable");
        assert_eq!(identity.route, RouteId::of("1b2c", "app"));
        assert_eq!(identity.pod(), "?/?");
        Ok(())
    }

    #[test]
    fn a_renewed_token_is_read_anew_and_an_empty_one_refused() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("uid"), "1b2c")?;
        let identity = Identity::load(folder.path(), "app").expect("readable");
        assert!(matches!(identity.token(), Err(IdentityError::Unreadable { .. })));
        for token in ["first", "second\n"] {
            fs::write(folder.path().join("token"), token)?;
            assert_eq!(identity.token().expect("there"), token.trim().as_bytes());
        }
        fs::write(folder.path().join("token"), "\n")?;
        assert!(matches!(identity.token(), Err(IdentityError::Senseless { .. })));
        Ok(())
    }

    #[test]
    fn a_missing_folder_teaches_the_flag() {
        let error = Identity::load(Path::new("/nonexistent"), "app").expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/uid"), "{error}");
        assert!(error.to_string().contains("--identity"), "{error}");
    }
}
