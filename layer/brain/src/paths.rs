//! Paths by their letters: what `.`, `..` and doubled slashes come to.
//!
//! Rules are judged on the *lexical* path, since following symbolic links would cost calls. The pod gets the path as
//! the program meant it, so that there `..` behind a symbolic link goes where the pod's kernel says.

/// Whether a path has neither empty components nor `.` nor `..`, so that it means what it says.
#[must_use]
pub fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    for (index, &byte) in path.iter().enumerate() {
        let starts = last == b'/' || index == 0;
        if starts && (byte == b'.' && is_dots(&path[index..]) || byte == b'/' && index > 0) {
            return false;
        }
        last = byte;
    }
    true
}

/// Whether a relative path leaves the folder it starts in, or may do so on its way.
#[must_use]
pub fn climbs(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// Begins with a component `.` or `..`.
fn is_dots(rest: &[u8]) -> bool {
    let rest = rest.strip_prefix(b"..").or_else(|| rest.strip_prefix(b".")).unwrap_or(rest);
    matches!(rest.first(), None | Some(b'/'))
}

/// The path that a relative one means in a folder.
#[must_use]
pub fn join(folder: &[u8], path: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(folder.len() + path.len() + 1);
    joined.extend_from_slice(folder);
    if !folder.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(path);
    joined
}

/// As [`join`], of a folder whose path has no symbolic links, as getcwd(2) says it: there, leading `..` lead
/// where their letters say, and may lead out of a folder that the pod hasn't got.
#[must_use]
pub fn join_real(folder: &[u8], path: &[u8]) -> Vec<u8> {
    let mut folder = folder;
    let mut rest = path;
    loop {
        let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let (part, next) = rest.split_at(end);
        match part {
            b".." => folder = &folder[..folder.iter().rposition(|byte| *byte == b'/').unwrap_or(0)],
            b"." => {}
            _ => return join(folder, rest),
        }
        rest = &next[next.iter().position(|byte| *byte != b'/').unwrap_or(next.len())..];
    }
}

/// An absolute path without `.`, `..`, doubled and trailing slashes.
#[must_use]
pub fn normal(path: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => result.truncate(result.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            part => {
                result.push(b'/');
                result.extend_from_slice(part);
            }
        }
    }
    if result.is_empty() { b"/".to_vec() } else { result }
}

/// The part of `path` below `folder`; empty where they are the same, `None` where it lies elsewhere.
#[must_use]
pub fn below<'a>(path: &'a [u8], folder: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(folder)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        rest if folder == b"/" => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dots_and_slashes_come_to_what_they_mean() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"/a/./b//c/", b"/a/b/c"),
            (b"/a/../../b", b"/b"),
            (b"/..", b"/"),
            (b"//", b"/"),
            (b"/a/.../b", b"/a/.../b"),
            (b"/a/.b/..c", b"/a/.b/..c"),
        ];
        for (path, expected) in cases {
            assert_eq!(normal(path), expected);
        }
    }

    #[test]
    fn leading_dots_are_resolved_in_a_real_folder() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"../../srv/x", b"/srv/x"),
            (b"./../b/../c", b"/tmp/b/../c"),
            (b"..//..///x", b"/x"),
            (b"../../../..", b"/"),
            (b"x/..", b"/tmp/w/x/.."),
            (b".", b"/tmp/w/"),
        ];
        for (path, expected) in cases {
            assert_eq!(join_real(b"/tmp/w", path), expected);
        }
    }

    #[test]
    fn below_goes_by_components() {
        assert_eq!(below(b"/srv/data", b"/srv"), Some(&b"data"[..]));
        assert_eq!(below(b"/srv", b"/srv"), Some(&b""[..]));
        assert_eq!(below(b"/srvx", b"/srv"), None);
        assert_eq!(below(b"/x", b"/"), Some(&b"x"[..]));
    }

    proptest! {
        #[test]
        fn plain_paths_are_their_own_normal_form(path in "/[ab./]{0,12}") {
            let normal = normal(path.as_bytes());
            let trimmed = path.trim_end_matches('/');
            let same = normal == trimmed.as_bytes() || normal == b"/" && path == "/";
            prop_assert!(!is_plain(path.as_bytes()) || same, "{path}");
        }

        #[test]
        fn what_does_not_climb_stays_below(path in "[ab.]{1,3}(/[ab.]{1,3}){0,3}") {
            let inside = below(&normal(&join(b"/w", path.as_bytes())), b"/w").is_some();
            prop_assert!(climbs(path.as_bytes()) || inside);
        }
    }
}
