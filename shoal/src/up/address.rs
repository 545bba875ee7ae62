//! The address of this machine that others can use, and what can be said of who reaches it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use shoal_http::global::is_global;

/// An address somewhere else (RFC 5737): the way to it shows which of this machine's addresses others see. Nothing is sent.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// This machine's address towards its network; loopback if it has no network.
pub(super) fn own() -> IpAddr {
    let way = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let seen = way.and_then(|socket| socket.connect(ELSEWHERE).and_then(|()| socket.local_addr()));
    seen.map(|address| address.ip())
        .ok()
        .filter(|ip| !ip.is_unspecified())
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Who reaches that address, in a sentence. `ports`: those that would have to be reachable.
pub(super) fn reach(at: SocketAddr, ports: &str) -> String {
    let ip = at.ip();
    if ip.is_loopback() {
        format!("{ip} is this machine alone: nobody else reaches it; --listen IP:PORT gives another address")
    } else if is_global(ip) {
        format!(
            "nobody has tried whether {ip} is reached from elsewhere: firewalls must let TCP to {ports} in"
        )
    } else {
        format!(
            "{ip} is reached from this network only; for others give --listen ROUTER_IP:{}, and forward TCP to {ports}",
            at.port()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_address_is_what_it_is() {
        for (at, said) in [
            ("127.0.0.1:7070", "this machine alone"),
            ("192.168.1.20:7070", "this network only"),
            ("10.1.2.3:7070", "this network only"),
            ("[fe80::1]:7070", "this network only"),
            ("8.8.8.8:7070", "nobody has tried"),
        ] {
            assert!(reach(at.parse().unwrap(), "7070 and 7071").contains(said), "{at}");
        }
        assert!(!own().is_unspecified());
    }
}
