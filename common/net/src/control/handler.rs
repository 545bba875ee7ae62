//! One control connection's part in channels: negotiates their protocol and hands them on.
//!
//! Runs inside the connection's task. An inbound channel takes one of the connection's permits and
//! waits here, in order, until `Incoming` has room, so none is lost in a burst and none is queued
//! without a bound. libp2p-stream, which does the same job, drops inbound streams in a burst, forgets
//! the remote address and keeps something of every connection that ever was.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::UpgradeInfo;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{StreamUpgradeError, SubstreamProtocol};
use libp2p::{InboundUpgrade, OutboundUpgrade, Stream, StreamProtocol};
use shoal_common::PeerId;
use shoal_common::bucket::{Allowance, Bucket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::PollSender;

use super::Inbound;
use crate::channel::Channel;
use crate::error::NetError;
use crate::protocol::Protocol;

/// Channels that one connection may be asked to open before the first of them is: more callers than
/// that are told that it is busy.
const MAX_REQUESTS: usize = 64;

/// Channels that the other side may open on one connection at once, and the time after which it may open one more. A client
/// opens one, and another when the first ended; each costs a negotiation.
const CHANNELS: Allowance = Allowance { burst: 256, refill: Duration::from_millis(100) };

/// The other side opened channel after channel: the connection is to be closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooManyChannels;

/// Asks a connection for a channel.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    pub(super) protocol: Protocol,
    pub(super) name: StreamProtocol,
    pub(super) reply: oneshot::Sender<Result<Channel, NetError>>,
}

/// The protocols that are served, under both kinds of names.
pub(super) type Served = Arc<[(StreamProtocol, Protocol)]>;

pub(crate) struct Handler {
    peer: PeerId,
    remote: SocketAddr,
    served: Served,
    permits: Arc<Semaphore>,
    opened: Bucket,
    /// Reported once.
    overdrawn: Option<TooManyChannels>,
    requests: VecDeque<OpenRequest>,
    inbound: VecDeque<Inbound>,
    incoming: PollSender<Inbound>,
}

impl Handler {
    pub(super) fn new(
        peer: PeerId,
        remote: SocketAddr,
        served: Served,
        channels: usize,
        incoming: mpsc::Sender<Inbound>,
    ) -> Self {
        Self {
            peer,
            remote,
            served,
            permits: Arc::new(Semaphore::new(channels)),
            opened: Bucket::full(Instant::now()),
            overdrawn: None,
            requests: VecDeque::new(),
            inbound: VecDeque::new(),
            incoming: PollSender::new(incoming),
        }
    }

    /// Who is at the other end, and where.
    pub(super) fn ends(&self) -> (PeerId, SocketAddr) {
        (self.peer, self.remote)
    }

    fn accept(&mut self, stream: Stream, name: &StreamProtocol) {
        if self.opened.take(1, CHANNELS, Instant::now()).is_err() {
            self.overdrawn = Some(TooManyChannels);
            return;
        }
        let Some((_, protocol)) = self.served.iter().find(|(served, _)| served == name) else { return };
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            tracing::debug!(peer = %self.peer, %name, "refused a channel: the connection has its share");
            return;
        };
        let channel = Channel::new(stream, self.peer, self.remote, Some(permit));
        self.inbound.push_back(Inbound {
            peer: self.peer,
            remote: self.remote,
            protocol: *protocol,
            channel,
        });
    }

    /// Passes on as many inbound channels as there is room for.
    fn pass_on(&mut self, cx: &mut Context<'_>) {
        while !self.inbound.is_empty() {
            match self.incoming.poll_reserve(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {
                    if let Some(inbound) = self.inbound.pop_front() {
                        // It can only fail when `Incoming` is gone, and the channel with it.
                        let _ = self.incoming.send_item(inbound);
                    }
                }
                Poll::Ready(Err(_)) => self.inbound.clear(),
            }
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = TooManyChannels;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = AnyOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyOf> {
        SubstreamProtocol::new(AnyOf(self.served.iter().map(|(name, _)| name.clone()).collect()), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<AnyOf, OpenRequest, TooManyChannels>> {
        if let Some(overdrawn) = self.overdrawn.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(overdrawn));
        }
        self.pass_on(cx);
        while let Some(request) = self.requests.pop_front() {
            if !request.reply.is_closed() {
                let protocol = SubstreamProtocol::new(AnyOf(vec![request.name.clone()]), request);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        if self.requests.len() < MAX_REQUESTS {
            self.requests.push_back(request);
        } else {
            let _ = request.reply.send(Err(NetError::Busy { peer: self.peer }));
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AnyOf, AnyOf, (), OpenRequest>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, name),
                info: (),
            }) => self.accept(stream, &name),
            // It speaks none of our protocols, which costs as much.
            ConnectionEvent::ListenUpgradeError(_)
                if self.opened.take(1, CHANNELS, Instant::now()).is_err() =>
            {
                self.overdrawn = Some(TooManyChannels);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info: request,
            }) => {
                let channel = Channel::new(stream, self.peer, self.remote, None);
                // The caller may have given up; the channel then ends here.
                let _ = request.reply.send(Ok(channel));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: request, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => {
                        NetError::Unsupported { peer: self.peer, protocol: request.protocol }
                    }
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => {
                        NetError::Lost { peer: self.peer }
                    }
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = request.reply.send(Err(error));
            }
            _ => {}
        }
    }
}

/// Agrees on one of some protocols and adds nothing to the stream.
pub(crate) struct AnyOf(Vec<StreamProtocol>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}

impl OutboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}
