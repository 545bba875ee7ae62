//! Which addresses are global unicast ones. Everything else is a private network, or no place at all. The
//! standard library's own test of this is unstable, and it does not look at the IPv4 addresses inside IPv6 ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Blocks of IPv4 that are not global unicast: IANA's special-purpose registry (RFC 6890), multicast and what is reserved.
/// Where the registry carves a reachable part out of a block, it stays out: no files are kept there.
const NOT_GLOBAL: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];
/// The only block of IPv6 that global unicast addresses are given out of (RFC 4291, section 2.4).
const GLOBAL_SIX: (u128, u32) = (0x2000 << 112, 3);
/// What of it is special: protocol assignments with Teredo, ORCHID and benchmarks in them (RFC 2928), documentation
/// (RFC 3849, RFC 9637), and the former 6bone.
const NOT_GLOBAL_SIX: [(u128, u32); 4] =
    [(0x2001 << 112, 23), (0x2001_0db8 << 96, 32), (0x3fff << 112, 20), (0x3ffe << 112, 16)];
/// IPv4 mapped into IPv6 (RFC 4291), and as NAT64 translates it everywhere (RFC 6052): the last 32 bits.
const CONTAINS_FOUR: [(u128, u32); 2] = [(0xffff << 32, 96), (0x0064_ff9b << 96, 96)];
/// 6to4 (RFC 3056): the 32 bits behind the first 16.
const SIX_TO_FOUR: (u128, u32) = (0x2002 << 112, 16);

/// Whether an address is a global unicast one; an IPv6 address that contains an IPv4 one counts as that.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_four(address),
        IpAddr::V6(address) => is_global_six(address),
    }
}

fn is_global_four(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    NOT_GLOBAL.iter().all(|&(block, length)| {
        let shift = 32 - length;
        bits >> shift != u32::from_be_bytes(block) >> shift
    })
}

fn is_global_six(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    let within = |&(block, length): &(u128, u32)| bits >> (128 - length) == block >> (128 - length);
    if CONTAINS_FOUR.iter().any(within) {
        return is_global_four(four(bits));
    }
    if !within(&GLOBAL_SIX) || NOT_GLOBAL_SIX.iter().any(within) {
        return false;
    }
    if within(&SIX_TO_FOUR) {
        return is_global_four(four(bits >> 80));
    }
    // ISATAP (RFC 5214): an interface that is named by an IPv4 address, in whatever network.
    let interface = (bits >> 32) & 0xffff_ffff;
    !matches!(interface, 0x0000_5efe | 0x0200_5efe) || is_global_four(four(bits))
}

/// The IPv4 address in the last 32 bits.
fn four(bits: u128) -> Ipv4Addr {
    let [.., a, b, c, d] = bits.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn global(text: &str) -> bool {
        is_global(text.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_anybodys() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
            "2a00:1450::5efe:1.1.1.1",
        ] {
            assert!(global(text), "{text}");
        }
    }

    #[test]
    fn all_others_are_not() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::1.1.1.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::192.168.1.1",
            "64:ff9b:1::1.1.1.1",
            "64:ff9b:1:2:3:4:5:6",
            "100::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a01:203::1",
            "2002:c0a8:101::1",
            "3fff::1",
            "3ffe::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "2a00:1450::5efe:10.0.0.1",
            "2a00:1450::200:5efe:127.0.0.1",
        ] {
            assert!(!global(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_inside_another_counts_the_same(bits: u32) {
            let four = Ipv4Addr::from_bits(bits);
            let expected = is_global(four.into());
            let mapped: IpAddr = four.to_ipv6_mapped().into();
            let nat64: IpAddr = Ipv6Addr::from_bits((0x0064_ff9b << 96) | u128::from(bits)).into();
            let six_to_four: IpAddr = Ipv6Addr::from_bits((0x2002 << 112) | u128::from(bits) << 80 | 1).into();
            for address in [mapped, nat64, six_to_four] {
                prop_assert_eq!(is_global(address), expected, "{} in {}", four, address);
            }
        }
    }
}
