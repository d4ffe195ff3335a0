//! getaddrinfo(3) of the C library that we are linked with: musl reads the pod's own /etc/hosts and /etc/resolv.conf,
//! search domains and `ndots` included, as a program in the pod would. Blocks; call it where blocking is allowed.

use std::{
    ffi::{CStr, CString},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

use mirrord_protocol::{limits::ADDRESSES, reply::Resolved, request::Family};

/// Why a name has no addresses.
#[derive(Debug)]
pub(crate) struct LookupError {
    /// EAI_ code; musl numbers them as glibc does.
    pub(crate) code: i32,
    /// gai_strerror(3), or what errno says.
    pub(crate) message: String,
}

/// Frees the list of answers.
struct Answers(*mut libc::addrinfo);

impl Drop for Answers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list came from getaddrinfo(3) and is freed once, here.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

/// Looks a name up.
pub(crate) fn resolve(
    name: &CString,
    family: Family,
    canonical: bool,
    configured: bool,
) -> Result<Resolved, LookupError> {
    // SAFETY: all-zero is a valid addrinfo: numbers and null pointers.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = match family {
        Family::Any => libc::AF_UNSPEC,
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    // One entry per address instead of one per socket type.
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_flags =
        if canonical { libc::AI_CANONNAME } else { 0 } | if configured { libc::AI_ADDRCONFIG } else { 0 };
    let mut answers = Answers(ptr::null_mut());
    // SAFETY: name and hints live over the call, and the result goes into a pointer that `Answers` frees.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut answers.0) };
    if code == 0 { Ok(read(&answers)) } else { Err(LookupError { code, message: describe(code) }) }
}

fn describe(code: i32) -> String {
    if code == libc::EAI_SYSTEM {
        return io::Error::last_os_error().to_string();
    }
    // SAFETY: gai_strerror(3) takes any number.
    let text = unsafe { libc::gai_strerror(code) };
    if text.is_null() {
        return format!("look-up error {code}");
    }
    // SAFETY: not null, and the C library's messages are NUL-terminated and live for ever.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn read(answers: &Answers) -> Resolved {
    let mut resolved = Resolved { addresses: Vec::new(), canonical: None };
    let mut next = answers.0;
    while !next.is_null() {
        // SAFETY: not null, and the list lives as long as `answers`.
        let answer = unsafe { &*next };
        if !answer.ai_canonname.is_null() && resolved.canonical.is_none() {
            // SAFETY: not null, and getaddrinfo(3) terminates names.
            let name = unsafe { CStr::from_ptr(answer.ai_canonname) };
            resolved.canonical = name.to_str().ok().map(str::to_owned);
        }
        if let Some(address) = address(answer)
            && !resolved.addresses.contains(&address)
            && resolved.addresses.len() < ADDRESSES
        {
            resolved.addresses.push(address);
        }
        next = answer.ai_next;
    }
    resolved
}

fn address(answer: &libc::addrinfo) -> Option<IpAddr> {
    match answer.ai_family {
        _ if answer.ai_addr.is_null() => None,
        libc::AF_INET => {
            // SAFETY: not null, and of this family getaddrinfo(3) gives a sockaddr_in; read without alignment.
            let address = unsafe { answer.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: not null, and of this family getaddrinfo(3) gives a sockaddr_in6; read without alignment.
            let address = unsafe { answer.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(name: &str, family: Family) -> Result<Resolved, LookupError> {
        resolve(&CString::new(name).expect("no NUL"), family, true, false)
    }

    #[test]
    fn numbers_and_localhost_need_no_network() {
        let numeric = look_up("192.0.2.7", Family::Any).expect("numeric");
        assert_eq!(numeric.addresses, [IpAddr::from([192, 0, 2, 7])]);
        assert_eq!(numeric.canonical.as_deref(), Some("192.0.2.7"));
        let local = look_up("localhost", Family::V4).expect("in /etc/hosts");
        assert_eq!(local.addresses, [IpAddr::from([127, 0, 0, 1])]);
        assert!(look_up("::1", Family::V6).expect("numeric").addresses[0].is_loopback());
    }

    #[test]
    fn errors_keep_their_code() {
        let error = look_up("", Family::Any).expect_err("no name");
        assert_eq!(error.code, libc::EAI_NONAME);
        assert!(!error.message.is_empty());
    }
}
