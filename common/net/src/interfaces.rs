//! This machine's own addresses, and the networks that they are in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use if_addrs::IfAddr;

/// Addresses of a machine that are looked at.
const MAX_ADDRESSES: usize = 64;

/// An address of this machine, and how many of its leading bits its network shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// The address.
    pub ip: IpAddr,
    /// Leading bits of its network: at most 32 or 128.
    pub prefix: u8,
}

impl Interface {
    /// Whether an address is in its network.
    #[must_use]
    pub fn reaches(&self, other: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.ip, other.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                prefix > 0
                    && (own.to_bits() ^ other.to_bits()).checked_shr(32 - prefix.min(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                prefix > 0
                    && (own.to_bits() ^ other.to_bits()).checked_shr(128 - prefix.min(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The addresses of this machine, but those of loopback and of links alone, in order.
///
/// # Errors
/// When the system does not say.
pub fn interfaces() -> std::io::Result<Vec<Interface>> {
    let all = if_addrs::get_if_addrs()?;
    let mut found: Vec<Interface> = all
        .into_iter()
        .map(|interface| match interface.addr {
            IfAddr::V4(v4) => Interface { ip: v4.ip.into(), prefix: v4.prefixlen },
            IfAddr::V6(v6) => Interface { ip: v6.ip.into(), prefix: v6.prefixlen },
        })
        .filter(|interface| !interface.ip.is_loopback() && !is_of_one_link(interface.ip))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    Ok(found)
}

/// Whether an address leads nowhere outside the networks of those who have such ones: private ones, of a carrier's NAT, of a link,
/// and loopback.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_local_v4(ip),
        IpAddr::V6(ip) => is_local_v6(ip),
    }
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    // RFC 6598: 100.64.0.0/10.
    let shared = first == 100 && (64..128).contains(&second);
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared
}

fn is_local_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local()
}

fn is_of_one_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_reaches_its_own_addresses_alone() {
        let home = Interface { ip: "192.168.1.2".parse().unwrap(), prefix: 24 };
        for (ip, reached) in
            [("192.168.1.77", true), ("::ffff:192.168.1.9", true), ("192.168.2.1", false), ("fd00::1", false)]
        {
            assert_eq!(home.reaches(ip.parse().unwrap()), reached, "{ip}");
        }
        let alone = Interface { ip: "198.51.100.1".parse().unwrap(), prefix: 32 };
        assert!(alone.reaches(alone.ip) && !alone.reaches("198.51.100.2".parse().unwrap()));
        let all = Interface { ip: "10.0.0.1".parse().unwrap(), prefix: 0 };
        assert!(!all.reaches("203.0.113.1".parse().unwrap()), "what is all is no network");
        let six = Interface { ip: "fd00::1".parse().unwrap(), prefix: 64 };
        assert!(six.reaches("fd00::2".parse().unwrap()) && !six.reaches("fd00:0:0:1::2".parse().unwrap()));
    }

    #[test]
    fn local_addresses_are_known() {
        for ip in [
            "10.1.1.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.0.1",
            "fd00::1",
            "fe80::1",
            "::1",
        ] {
            assert!(is_local(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["203.0.113.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(!is_local(ip.parse().unwrap()), "{ip}");
        }
    }
}
