//! What counts as one address.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one address wherever anything is counted by address (connections, failed logins, new accounts): an
/// IPv4 address, or an IPv6 /64, all of which one host usually has to itself (RFC 6177).
#[must_use]
pub fn site(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_site_is_one_host() {
        let site_of = |text: &str| site(text.parse().unwrap());
        assert_eq!(site_of("2001:db8::1"), site_of("2001:db8::ffff:1"));
        assert_ne!(site_of("2001:db8::1"), site_of("2001:db8:0:1::1"));
        assert_eq!(site_of("::ffff:10.0.0.1"), site_of("10.0.0.1"));
        assert_ne!(site_of("10.0.0.1"), site_of("10.0.0.2"));
    }
}
