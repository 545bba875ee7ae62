//! Where this client is, on its own networks and for others, while that changes: a machine that comes to another network goes on there.

use std::net::SocketAddr;
use std::time::Duration;

use shoal_session::events::Event;
use shoal_session::ways::Ways;

use crate::Client;

/// How often this machine's addresses are looked at: a change is acted on well within the five seconds of P28.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Says on which networks this machine is, where the client listens at `listening`. True if that is news.
pub(crate) fn locate(ways: &Ways, listening: SocketAddr) -> bool {
    // Where the system does not say, all is as it was.
    let Ok(networks) = shoal_net::interfaces() else { return false };
    let bound = listening.ip();
    let serves = |ip: &std::net::IpAddr| match bound {
        _ if bound == *ip => true,
        std::net::IpAddr::V4(any) => any.is_unspecified() && ip.is_ipv4(),
        // It takes connections of both kinds.
        std::net::IpAddr::V6(any) => any.is_unspecified(),
    };
    let near = networks.iter().map(|network| network.ip).filter(serves);
    let near = near.map(|ip| SocketAddr::new(ip, listening.port())).collect();
    ways.is_at(networks, near)
}

/// Reconnects everything when this machine is at other addresses, until the client leaves.
pub(crate) async fn follow(client: Client) {
    let (ways, listening) = (client.0.ways.clone(), client.0.swarm.local_addr());
    loop {
        tokio::select! {
            () = client.0.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let (looked, ways) = (listening, ways.clone());
        let news = tokio::task::spawn_blocking(move || locate(&ways, looked)).await;
        if news.is_ok_and(|news| news) {
            tracing::info!("this machine is at other addresses; everything is reconnected");
            client.0.session.redial();
            client.0.swarm.redial();
            client.0.transfers.woke();
        }
    }
}

/// Reports when it is known that others do not reach this client, or do again, until the client leaves.
pub(crate) async fn report(client: Client) {
    let mut reach = client.0.ways.reach();
    let mut said: Option<Option<bool>> = None;
    while let Some(Ok(())) = client.0.stop.run_until_cancelled(reach.changed()).await {
        let now = reach.borrow_and_update().clone();
        let Some(address) = now.address else { continue };
        let known = now.reached.is_some() || !now.proven;
        // That all is well at first needs no word.
        let quiet = said.is_none() && now.reached == Some(true);
        if known && said != Some(now.reached) {
            said = Some(now.reached);
            if !quiet {
                client.0.events.emit(Event::Reachability {
                    address,
                    reached: now.reached,
                    relays: now.relays,
                });
            }
        }
    }
}
