//! Addresses that no session may connect to from a pod, whatever it is granted.
//!
//! Loopback reaches what the pod's containers keep to themselves (admin ports, proxies), and metadata services hand
//! out the *node's* cloud credentials. Both must be listed by an administrator first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// Why an address is out of bounds.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum OutOfBounds {
    #[error("a loopback address of the pod")]
    Loopback,
    #[error("a link-local address")]
    LinkLocal,
    #[error("a metadata service of the cloud")]
    Metadata,
}

/// Metadata services outside the link-local ranges: Azure's wire server, Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// AWS (instances, pod identity), Google, Scaleway.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Checks an address in any of the forms that lead to it.
pub(crate) fn check(address: IpAddr) -> Result<(), OutOfBounds> {
    match plain(address) {
        // "This host" (RFC 1122 §3.2.1.3): Linux connects to loopback.
        IpAddr::V4(v4) if v4.is_loopback() || v4.octets()[0] == 0 => Err(OutOfBounds::Loopback),
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => Err(OutOfBounds::Loopback),
        IpAddr::V4(v4) if v4.is_link_local() => Err(OutOfBounds::LinkLocal),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(OutOfBounds::LinkLocal),
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Err(OutOfBounds::Metadata),
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => Err(OutOfBounds::Metadata),
        _ => Ok(()),
    }
}

/// An IPv4 address that is written as an IPv6 one: mapped (RFC 4291 §2.5.5.2), compatible (§2.5.5.1), translated (RFC 7915
/// §2.1 and before it RFC 2765), behind NAT64 (RFC 6052 §2.1, RFC 8215), or tunnelled (6to4, RFC 3056 §2).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let [.., a, b, c, d] = v6.octets();
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => IpAddr::V6(v6),
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0x64, 0xff9b, 0 | 1, ..] => IpAddr::from([a, b, c, d]),
        [0x2002, high, low, ..] => IpAddr::from((u32::from(high) << 16 | u32::from(low)).to_be_bytes()),
        _ => IpAddr::V6(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(address: &str) -> Result<(), OutOfBounds> {
        check(address.parse().expect(address))
    }

    #[test]
    fn guarded_addresses_are_refused_in_every_spelling() {
        for address in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1"] {
            assert_eq!(verdict(address), Err(OutOfBounds::Loopback), "{address}");
        }
        for address in ["169.254.169.254", "169.254.0.1", "fe80::1", "::ffff:169.254.169.254"] {
            assert_eq!(verdict(address), Err(OutOfBounds::LinkLocal), "{address}");
        }
        // 169.254.169.254 behind NAT64 twice, translated, compatible, and by 6to4.
        for address in [
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "::ffff:0:a9fe:a9fe",
            "::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert_eq!(verdict(address), Err(OutOfBounds::LinkLocal), "{address}");
        }
        for address in ["64:ff9b::7f00:1", "::127.0.0.1", "2002:7f00:1::"] {
            assert_eq!(verdict(address), Err(OutOfBounds::Loopback), "{address}");
        }
        for address in [
            "fd00:42::42",
            "64:ff9b::168.63.129.16",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ] {
            assert_eq!(verdict(address), Err(OutOfBounds::Metadata), "{address}");
        }
    }

    #[test]
    fn cluster_and_public_addresses_are_not() {
        for address in [
            "10.96.0.1",
            "172.16.3.4",
            "192.0.2.2",
            "8.8.8.8",
            "fd00::2",
            "2001:db8::1",
            "64:ff9b::a00:1",
            "2002:c000:202::1",
        ] {
            assert_eq!(verdict(address), Ok(()), "{address}");
        }
    }
}
