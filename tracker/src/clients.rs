//! Carries clients' calls to the service and its answers back: one task per connection, one call at a time.
//!
//! Log lines bear the connection (`client`) and the call (`call`, with the number that the client gave it), also those of the
//! database thread.

use std::time::{Duration, Instant};

use shoal_common::limits::{MAX_CLIENT_MESSAGE, MAX_STRANGER_MESSAGE};
use shoal_common::tracker_api::ways::PUSH;
use shoal_common::tracker_api::{Answer, Call, FromTracker, Reply, ToTracker};
use shoal_net::Inbound;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::price;
use crate::service::{Client, Service};

/// How long a connection may stay without a login: a user at a prompt takes a while.
const STRANGER_IDLE: Duration = Duration::from_secs(15 * 60);
/// How long a client may take to accept an answer before its connection is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one client until it leaves, breaks the protocol, or the tracker closes.
pub async fn serve(service: Service, inbound: Inbound, closing: CancellationToken) {
    let span = tracing::info_span!("client", peer = %inbound.peer, from = %inbound.remote);
    serve_calls(service, inbound, closing).instrument(span).await;
}

async fn serve_calls(service: Service, inbound: Inbound, closing: CancellationToken) {
    let mut client = Client::new(inbound.peer, inbound.remote);
    let (payer, tariff) = client.payer();
    let mut budget = service.budgets().connection(payer, tariff);
    let (mut sender, mut receiver) = inbound.channel.split();
    loop {
        receiver.set_limit(if client.is_known() { MAX_CLIENT_MESSAGE } else { MAX_STRANGER_MESSAGE });
        let over = client.is_over();
        let received = tokio::select! {
            () = closing.cancelled() => break,
            () = tokio::time::sleep(STRANGER_IDLE), if !client.is_known() => break,
            // Its client resumes elsewhere, and reads the reason there.
            () = over => break,
            push = client.unasked().next() => {
                let message = FromTracker { call: PUSH, body: Reply::Done(Answer::Push(push)) };
                let encoded = crate::record::encode(&message);
                match tokio::time::timeout(SEND_TIMEOUT, sender.send(&encoded)).await {
                    Ok(Ok(())) => continue,
                    _ => break,
                }
            }
            received = receiver.recv() => received,
        };
        let Ok(Some(message)) = received else { break };
        let call: ToTracker = match minicbor::decode(&message) {
            Ok(call) => call,
            Err(error) => {
                tracing::info!(%error, "a client sent something that is no call; closing its connection");
                break;
            }
        };
        let (payer, tariff) = client.payer();
        budget.is_paid_by(payer, tariff);
        let charged = tokio::select! {
            () = closing.cancelled() => break,
            charged = budget.charge(price::of_call(&call.body, message.len())) => charged,
        };
        if let Err(overdrawn) = charged {
            tracing::info!("a client sent {overdrawn}; closing its connection");
            break;
        }
        let (id, name) = (call.call, call.body.name());
        let span = tracing::info_span!("call", id, name, session = client.session());
        let body = answer(&service, &mut client, call.body).instrument(span).await;
        let answer = FromTracker { call: id, body };
        let encoded = crate::record::encode(&answer);
        match tokio::time::timeout(SEND_TIMEOUT, sender.send(&encoded)).await {
            // An overdraft is waited for before the next call.
            Ok(Ok(())) => budget.owe(price::of_answer(&answer.body, encoded.len())),
            _ => break,
        }
    }
    service.gone(&client);
}

async fn answer(service: &Service, client: &mut Client, call: Call) -> Reply {
    let begun = Instant::now();
    let reply = service.answer(client, call).await;
    let took = begun.elapsed();
    match &reply {
        Reply::Done(_) => tracing::debug!(?took, "done"),
        Reply::Refused(refusal) => tracing::debug!(?took, kind = ?refusal.kind, "refused: {}", refusal.text),
    }
    reply
}
