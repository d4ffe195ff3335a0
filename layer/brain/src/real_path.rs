//! What realpath(3) gives: a path without symbolic links, of parts that may be on both sides.
//!
//! libc looks at every component from the root; so do we, each where the rules say it is. A local program of a remote
//! path pays a question per component, most of which the proxy answers from what it knows.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
};

use mirrord_protocol::{path::RemotePath, reply::Attributes};

use crate::{
    conversation::{Ask, Link, ReadLink, Stat},
    files::At,
    layer::{Handled, Instead, Layer},
    rules::Side,
    sys::{self, Errno},
};

/// How many links may lead to one another (`MAXSYMLINKS` of the kernel).
const LINKS: usize = 40;

/// What a component is.
enum Found {
    Folder,
    Other,
    Link(Vec<u8>),
}

impl Layer {
    /// realpath(3), of a path that is remote.
    ///
    /// # Errors
    /// What to do [`Instead`].
    pub fn real_path(&self, at: At<'_>) -> Handled<CString> {
        let path = self.locate(at)?;
        let found = walk(path.as_bytes(), |path| self.look(path))?;
        CString::new(found).map_err(|_| Instead::Fail(Errno(libc::ENOENT)))
    }

    /// What a path without symbolic links in front of its last component is.
    fn look(&self, path: &[u8]) -> Handled<Found> {
        if self.rules.decide(path) == Side::Local {
            let path = CString::new(path).map_err(|_| Errno(libc::ENOENT))?;
            return Ok(look_here(&path)?);
        }
        let path = RemotePath::new(path).map_err(|_| Errno(libc::ENAMETOOLONG))?;
        let stat = Stat { path: path.clone(), no_follow: true, access: 0 };
        let attributes: Attributes = self.proxy.ask(&Ask::Stat(stat))?;
        Ok(match attributes.mode & libc::S_IFMT {
            libc::S_IFDIR => Found::Folder,
            libc::S_IFLNK => Found::Link(self.proxy.ask::<Link>(&Ask::ReadLink(ReadLink { path }))?.target),
            _ => Found::Other,
        })
    }
}

fn look_here(path: &CStr) -> Result<Found, Errno> {
    let mut buffer = [0; libc::PATH_MAX as usize];
    match sys::read_link(path, &mut buffer) {
        Ok(target) => return Ok(Found::Link(target.to_vec())),
        Err(Errno(libc::EINVAL)) => {}
        Err(errno) => return Err(errno),
    }
    let mode = sys::status_of(path)?.st_mode;
    Ok(if mode & libc::S_IFMT == libc::S_IFDIR { Found::Folder } else { Found::Other })
}

/// Follows an absolute path, component by component.
fn walk(path: &[u8], mut look: impl FnMut(&[u8]) -> Handled<Found>) -> Handled<Vec<u8>> {
    let parts =
        |path: &[u8]| -> Vec<Vec<u8>> { path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect() };
    let mut rest: VecDeque<Vec<u8>> = parts(path).into();
    let mut done: Vec<u8> = Vec::new();
    let mut links = 0;
    let mut last_is_folder = true;
    while let Some(part) = rest.pop_front() {
        if !last_is_folder {
            return Err(Errno(libc::ENOTDIR).into());
        }
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.truncate(done.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let before = done.len();
        done.push(b'/');
        done.extend_from_slice(&part);
        if done.len() >= libc::PATH_MAX as usize {
            return Err(Errno(libc::ENAMETOOLONG).into());
        }
        match look(&done)? {
            Found::Folder => {}
            Found::Other => last_is_folder = false,
            Found::Link(target) => {
                links += 1;
                if links > LINKS {
                    return Err(Errno(libc::ELOOP).into());
                }
                done.truncate(if target.first() == Some(&b'/') { 0 } else { before });
                parts(&target).into_iter().rev().for_each(|part| rest.push_front(part));
            }
        }
    }
    if done.is_empty() {
        done.push(b'/');
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(path: &str) -> Result<String, Instead> {
        walk(path.as_bytes(), |path| match std::str::from_utf8(path).unwrap() {
            "/a" | "/a/b" | "/c" => Ok(Found::Folder),
            "/a/file" | "/c/file" => Ok(Found::Other),
            "/a/up" => Ok(Found::Link(b"../c".to_vec())),
            "/root" => Ok(Found::Link(b"/".to_vec())),
            "/a/b/far" => Ok(Found::Link(b"/a/up/file".to_vec())),
            "/loop" => Ok(Found::Link(b"/loop".to_vec())),
            _ => Err(Errno(libc::ENOENT).into()),
        })
        .map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn links_are_followed_wherever_they_lead() {
        for (path, real) in [
            ("/a/b/far", "/c/file"),
            ("/a//./b/../file", "/a/file"),
            ("/root/root/a/up", "/c"),
            ("/", "/"),
            ("/a/up/..", "/"),
        ] {
            assert_eq!(walked(path).as_deref(), Ok(real), "{path}");
        }
    }

    #[test]
    fn what_leads_nowhere_says_so() {
        for (path, errno) in [
            ("/loop", libc::ELOOP),
            ("/none/x", libc::ENOENT),
            ("/a/file/x", libc::ENOTDIR),
            ("/a/file/", libc::ENOTDIR),
        ] {
            assert_eq!(walked(path), Err(Instead::Fail(Errno(errno))), "{path}");
        }
    }
}
