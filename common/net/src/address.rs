//! Between libp2p's addresses and ids and the ones used elsewhere.

use std::net::{IpAddr, SocketAddr, TcpListener};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use shoal_common::PeerId;
pub use shoal_common::site;

/// `/ip4/…/tcp/…` or `/ip6/…/tcp/…`.
pub(crate) fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// Reads the address back; whatever follows the port, such as `/p2p/…`, is not looked at.
pub(crate) fn to_socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// An IPv4 peer of a dual-stack socket is seen under its IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether an address is one of this machine's own.
#[must_use]
pub fn is_of_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || TcpListener::bind((ip, 0)).is_ok()
}

/// The id as it is used elsewhere; `None` for a key that is not Ed25519.
pub(crate) fn from_libp2p(id: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::from_libp2p_bytes(&id.to_bytes()).ok()
}

/// The id in libp2p's type.
pub(crate) fn to_libp2p(id: PeerId) -> libp2p::PeerId {
    libp2p::PeerId::from_bytes(&id.to_libp2p_bytes()).expect("an identity multihash is a peer id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_there_and_back() {
        for text in ["127.0.0.1:0", "10.1.2.3:65535", "[::1]:80", "[2001:db8::7]:9000"] {
            let address: SocketAddr = text.parse().unwrap();
            let multi = to_multiaddr(address);
            assert_eq!(to_socket_addr(&multi), Some(address));
            let id = to_libp2p(PeerId([3; 32]));
            assert_eq!(to_socket_addr(&multi.with(Protocol::P2p(id))), Some(address));
        }
        assert_eq!(to_socket_addr(&"/dns4/x/tcp/1".parse().unwrap()), None);
        assert_eq!(to_socket_addr(&"/ip4/1.2.3.4/udp/1".parse().unwrap()), None);
        assert_eq!(to_socket_addr(&Multiaddr::empty()), None);
    }

    #[test]
    fn ids_go_there_and_back() {
        let id = PeerId([9; 32]);
        assert_eq!(from_libp2p(&to_libp2p(id)), Some(id));
        assert_eq!(from_libp2p(&libp2p::PeerId::random()), None, "a random id is a SHA-256 multihash");
    }

    #[test]
    fn loopback_is_this_machine_and_a_documentation_address_is_not() {
        assert!(is_of_this_machine("127.0.0.1".parse().unwrap()));
        assert!(is_of_this_machine("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!is_of_this_machine("192.0.2.1".parse().unwrap()));
    }
}
