//! Names: which the pod resolves, and what getaddrinfo(3) reports where it can't.

use std::{ffi::CStr, ffi::c_int};

use mirrord_protocol::{limits::NAME_BYTES, reply::Resolved, request::Family};

use crate::{
    conversation::{Ask, Resolve},
    layer::{Layer, errno_of},
    proxy::AskError,
    sys::Errno,
};

/// Why a look-up gave no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// It is this machine's business.
    Local,
    /// A code of getaddrinfo(3).
    Code(c_int),
    /// `EAI_SYSTEM`, with its errno.
    System(Errno),
}

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// As the program said it.
    pub name: &'a CStr,
    /// `AF_UNSPEC`, `AF_INET` or `AF_INET6`.
    pub family: c_int,
    /// `AI_*` flags of getaddrinfo(3).
    pub flags: c_int,
}

impl Layer {
    /// Addresses of a name that isn't one itself, from the pod.
    ///
    /// # Errors
    /// See [`NoAddress`].
    pub fn resolve(&self, question: Question<'_>) -> Result<Resolved, NoAddress> {
        let name = question.name.to_bytes();
        if !self.settings.outgoing || name.is_empty() || is_local_name(name, self.host.as_bytes()) {
            return Err(NoAddress::Local);
        }
        let family = match question.family {
            libc::AF_UNSPEC => Family::Any,
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            _ => return Err(NoAddress::Local),
        };
        let name = match question.name.to_str() {
            Ok(name) if name.len() <= NAME_BYTES => name.to_owned(),
            _ => return Err(NoAddress::Code(libc::EAI_NONAME)),
        };
        let canonical = question.flags & libc::AI_CANONNAME != 0;
        let configured = question.flags & libc::AI_ADDRCONFIG != 0;
        let ask = |family| {
            let resolve = Resolve { name: name.clone(), family, canonical, configured };
            self.proxy.ask::<Resolved>(&Ask::Resolve(resolve)).map_err(|error| code(&error))
        };
        let found = ask(family).and_then(|found| match found.addresses.is_empty() {
            true => Err(NoAddress::Code(libc::EAI_NONAME)),
            false => Ok(found),
        });
        let mapped = family == Family::V6 && question.flags & libc::AI_V4MAPPED != 0;
        match found {
            // AI_V4MAPPED: IPv4 addresses where there are none of IPv6.
            Err(NoAddress::Code(_)) if mapped => ask(Family::V4),
            Ok(mut found) if mapped && question.flags & libc::AI_ALL != 0 => {
                let more = ask(Family::V4).map(|more| more.addresses).unwrap_or_default();
                found.addresses.extend(more);
                Ok(found)
            }
            other => other,
        }
    }
}

/// `localhost` is always this machine (RFC 6761 §6.3), and so is its own name, which programs have from
/// gethostname(2).
fn is_local_name(name: &[u8], host: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let localhost = b"localhost";
    let under = name.len().checked_sub(localhost.len() + 1).and_then(|at| name.get(at..));
    name.eq_ignore_ascii_case(localhost)
        || under.is_some_and(|end| end[0] == b'.' && end[1..].eq_ignore_ascii_case(localhost))
        || (!host.is_empty() && name.eq_ignore_ascii_case(host))
}

fn code(error: &AskError) -> NoAddress {
    match error {
        AskError::Failed(failure) => match failure.eai {
            Some(code) if code != libc::EAI_SYSTEM => NoAddress::Code(code),
            _ => NoAddress::System(errno_of(error, libc::EIO)),
        },
        AskError::Ended(_) | AskError::NoDescriptor => NoAddress::System(errno_of(error, libc::EIO)),
    }
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::reply::Failure;

    use super::*;

    #[test]
    fn this_machines_names_are_local() {
        for name in ["localhost", "LOCALHOST.", "a.localhost", "laptop"] {
            assert!(is_local_name(name.as_bytes(), b"laptop"), "{name}");
        }
        for name in ["db", "notlocalhost", "localhost.example.org", "laptop.example.org", ""] {
            assert!(!is_local_name(name.as_bytes(), b"laptop"), "{name}");
        }
    }

    #[test]
    fn failures_are_reported_in_the_resolvers_own_codes() {
        let lookup = AskError::Failed(Failure::lookup(libc::EAI_NONAME, "no such name"));
        assert_eq!(code(&lookup), NoAddress::Code(libc::EAI_NONAME));
        let refused = AskError::Failed(Failure::system(libc::EACCES));
        assert_eq!(code(&refused), NoAddress::System(Errno(libc::EACCES)));
    }
}
