//! Carries what clients say to the service and its answers back: one task a connection, one call at a time.

use std::time::Duration;

use shoal_common::limits::{MAX_CLIENT_MESSAGE, MAX_STRANGER_MESSAGE};
use shoal_common::tracker_api::{FromTracker, ToTracker};
use shoal_net::Inbound;
use tokio_util::sync::CancellationToken;

use crate::service::{Client, Service};

/// How long a connection may stay without a login: a prompt at which somebody thinks.
const STRANGER_IDLE: Duration = Duration::from_secs(15 * 60);
/// How long a client may take to accept an answer before its connection is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one client until it leaves, breaks the protocol, or the tracker closes.
pub async fn serve(service: Service, inbound: Inbound, closing: CancellationToken) {
    let mut client = Client::new(inbound.peer, inbound.remote);
    let (mut sender, mut receiver) = inbound.channel.split();
    loop {
        receiver.set_limit(if client.is_known() { MAX_CLIENT_MESSAGE } else { MAX_STRANGER_MESSAGE });
        let received = tokio::select! {
            () = closing.cancelled() => break,
            () = tokio::time::sleep(STRANGER_IDLE), if !client.is_known() => break,
            // Its client finds out by resuming elsewhere, and is told why there.
            () = client.is_over() => break,
            received = receiver.recv() => received,
        };
        let Ok(Some(message)) = received else { break };
        let call: ToTracker = match minicbor::decode(&message) {
            Ok(call) => call,
            Err(error) => {
                tracing::info!(peer = %inbound.peer, %error, "a client sent what is no call; closing its connection");
                break;
            }
        };
        let body = service.answer(&mut client, call.body).await;
        let answer = crate::record::encode(&FromTracker { call: call.call, body });
        match tokio::time::timeout(SEND_TIMEOUT, sender.send(&answer)).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    service.gone(&client);
}
