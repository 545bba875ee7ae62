//! The encrypted store: storage nodes' registration and reports, and users' stored files.

use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use shoal_common::bucket::Allowance;
use shoal_common::join::JoinProof;
use shoal_common::storage::{MAX_SEALED_PART, PointerKey, StoreManifest};
use shoal_common::tokens::{CopyOrder, StorageTicket, TICKET_LIFE_MS, seal};
use shoal_common::tracker_api::storage::{
    LEASE_LIFE_MS, MAX_REPORT, MAX_STORED_PAGE, NodeAnswer, NodeCall, NodeReport, Order, StoreAnswer,
    StoreCall, StoreStatus, StoredEntry, StoredFile,
};
use shoal_common::tracker_api::{Answer, Refusal, RefusalKind};
use shoal_common::{Blake3, NodeName, PeerId, RequestId, Uid};
use shoal_net::{Identity, bulk, site};
use shoal_replica::{BlobHash, Rows, Write};

use super::accounts::Caller;
use super::{Client, Service};
use crate::clock::wall_ms;
use crate::database::{Fault, Tx, refuse};
use crate::presence::Listening;
use crate::quota::{self, Quotas};
use crate::record::{POINTER, Pointer, StoredSize, delete, parse_pointer_key, pointer_key, put};
use crate::storage::{Place, Planned, Storage, not_reached, was_expelled, write_node};

/// A node reports again within this time, in milliseconds; orders go out with the answers.
const REPORT_WITHIN_MS: u32 = 400;
/// How long a signed copy order is good for, in milliseconds.
const COPY_ORDER_LIFE_MS: u64 = 10 * 60_000;
/// Rows of a user's stored files read at a time.
const PAGE: usize = 256;
/// How often one address has the tracker dial back: a rack of nodes at once, and each of 60 once a minute.
const DIAL_BACKS: Allowance = Allowance { burst: 128, refill: Duration::from_secs(1) };
/// Addresses that are remembered for it; nodes are admitted by an operator, so they are few.
pub(super) const MAX_DIALLED: usize = 1_024;

/// A storage node's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeSession(u64);

impl Service {
    /// A storage node's call.
    pub(super) async fn for_node(&self, client: &mut Client, call: NodeCall) -> Result<Answer, Refusal> {
        match call {
            NodeCall::Register { name, proof } => self.register_node(client, name, proof).await,
            NodeCall::Report(report) => self.take_report(client, *report),
        }
        .map(Answer::Node)
    }

    async fn register_node(
        &self,
        client: &mut Client,
        name: NodeName,
        proof: Option<JoinProof>,
    ) -> Result<NodeAnswer, Refusal> {
        let (peer, Listening { address, proven }) = (client.peer, client.listen.ok_or_else(not_registered)?);
        // First of all, because for a stranger nothing is done or written.
        let (ends, places) = ((peer, self.identity.peer_id()), (address, client.remote.ip()));
        let right = self.storage.check_admitted(ends, &name, places, proof).await?;
        // The address is dialled to see who answers, so that a false address takes no server's place. One that the node does
        // not connect from may be a third party's: it is not dialled, and takes no place.
        if proven {
            self.dial_back(client.remote.ip(), address, peer).await?;
        }
        let storage = self.storage.clone();
        let shown = name.clone();
        let place = Place { address, proven };
        self.database.run(move |tx| write_node(tx, &storage, (peer, right), name, place)).await?;
        self.storage.refresh().await?;
        let now = self.storage.now_ms();
        let session = self.storage.planner().register(peer, now).ok_or_else(|| was_expelled(&shown))?;
        self.node_gone(client);
        client.node = Some(NodeSession(session));
        tracing::info!("storage node {shown} is at {address} as {peer}");
        Ok(NodeAnswer::Registered { address: address.to_string() })
    }

    /// Sees whether the node answers at its address. What else answers there, and how, is not said.
    async fn dial_back(&self, from: IpAddr, address: SocketAddr, peer: PeerId) -> Result<(), Refusal> {
        let (from, now) = (site(from), Instant::now());
        let taken = {
            let mut buckets = self.dial_backs.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bucket = buckets.of(from, now);
            let taken = bucket.take(1, DIAL_BACKS, now);
            buckets.set(from, bucket, now);
            taken
        };
        taken.map_err(|wait| {
            let text = "too many storage nodes registered from this address lately; it is tried again";
            Refusal::new(RefusalKind::Wait, text).retry_after(wait)
        })?;
        match bulk::connect(address, peer, &self.identity).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::info!(%address, %error, "a storage node is not reached");
                Err(not_reached(address))
            }
        }
    }

    fn take_report(&self, client: &Client, report: NodeReport) -> Result<NodeAnswer, Refusal> {
        let NodeSession(session) = client.node.ok_or_else(not_registered)?;
        if report.held.len() + report.gone.len() + report.failed.len() > MAX_REPORT {
            let text = format!("more than {MAX_REPORT} chunks in one report");
            return Err(Refusal::new(RefusalKind::Malformed, text));
        }
        let (peer, now) = (client.peer, self.storage.now_ms());
        let leased = |user: Uid| self.presence.has_lease(user);
        let (planned, min_age_ms) = {
            let mut planner = self.storage.planner();
            if !planner.report(peer, session, report, now) {
                return Err(not_registered());
            }
            (planner.take_orders(peer, &leased, now), planner.rules().grace_ms)
        };
        let now_ms = wall_ms();
        let orders = planned.into_iter().map(|order| signed(&self.identity, order, peer, min_age_ms, now_ms));
        Ok(NodeAnswer::Orders {
            orders: orders.collect(),
            ticket_keys: self.trust.keys(),
            now_ms,
            retry_after_ms: REPORT_WITHIN_MS,
        })
    }

    /// A node's connection ended, or it registers again.
    pub(super) fn node_gone(&self, client: &Client) {
        if let Some(NodeSession(session)) = client.node {
            self.storage.planner().gone(client.peer, session, self.storage.now_ms());
        }
    }

    /// The nodes, also for clients that are not logged in: they name them before they ask for a password.
    pub(super) fn storage_nodes(&self) -> Answer {
        Answer::Store(StoreAnswer::Nodes(self.storage.planner().nodes(self.storage.now_ms())))
    }

    /// A user's call about their stored files.
    pub(super) async fn about_store(&self, session: Caller, call: StoreCall) -> Result<Answer, Refusal> {
        let storage = self.storage.clone();
        let Caller { user: caller, .. } = session;
        if matches!(call, StoreCall::Lease { .. } | StoreCall::Status) {
            // The others check it in their transactions.
            self.check(session).await?;
        }
        let answer = match call {
            StoreCall::Ticket => self.storage_ticket(session).await?,
            StoreCall::Nodes => return Ok(self.storage_nodes()),
            StoreCall::Put { request, key, manifest, sealed } => {
                let new = NewFile { request, key, manifest, sealed };
                let quotas = self.quotas.clone();
                self.run_for(session, move |tx| put_file(tx, &storage, &quotas, caller, new)).await?;
                self.storage.refresh().await?;
                StoreAnswer::Ok
            }
            StoreCall::Get { key } => self.read_for(session, move |tx| get_file(tx, caller, key)).await?,
            StoreCall::List { after } => {
                self.storage.refresh().await?;
                self.read_for(session, move |tx| list_files(tx, &storage, caller, after)).await?
            }
            StoreCall::Remove { request: _, key } => {
                let existed = self.run_for(session, move |tx| remove_file(tx, caller, key)).await?;
                self.storage.refresh().await?;
                StoreAnswer::Removed { existed, leased: self.presence.has_lease(caller) }
            }
            StoreCall::Lease { id, end } => {
                let life = if end { Duration::ZERO } else { Duration::from_millis(LEASE_LIFE_MS) };
                if !self.presence.lease(caller, id, life) {
                    return Err(Refusal::new(
                        RefusalKind::Limit,
                        "too many transfers are under way; try again later",
                    ));
                }
                StoreAnswer::Ok
            }
            StoreCall::Status => {
                self.storage.refresh().await?;
                let room = self.database.read(move |tx| quota::room_for_stored(tx, caller)).await?;
                StoreAnswer::Status(Box::new(StoreStatus { room, ..self.storage.status() }))
            }
        };
        Ok(Answer::Store(answer))
    }

    async fn storage_ticket(&self, session: Caller) -> Result<StoreAnswer, Refusal> {
        let Caller { user, peer, .. } = session;
        let allowance = self.read_for(session, move |tx| quota::node_allowance(tx, user)).await?;
        let now_ms = wall_ms();
        let ticket = StorageTicket { user, peer, expires_ms: now_ms + TICKET_LIFE_MS, allowance };
        let ticket = seal(&ticket, self.identity.peer_id(), |message| self.identity.sign(message));
        Ok(StoreAnswer::Ticket { ticket, now_ms })
    }
}

/// An order as it is sent to the node `to`.
fn signed(identity: &Identity, planned: Planned, to: PeerId, min_age_ms: u64, now_ms: u64) -> Order {
    match planned {
        Planned::Delete { chunk } => Order::Delete { chunk, min_age_ms },
        Planned::Copy { chunk, sealed, from, address } => {
            let expires_ms = now_ms + COPY_ORDER_LIFE_MS;
            let order = CopyOrder { owner: chunk.owner, chunk: chunk.chunk, from, to, expires_ms };
            let order = seal(&order, identity.peer_id(), |message| identity.sign(message));
            Order::Copy { chunk, sealed, from, address, order }
        }
    }
}

/// A file to be stored: what a client sends.
struct NewFile {
    request: RequestId,
    key: PointerKey,
    manifest: Vec<u8>,
    sealed: Vec<u8>,
}

/// Names a file, in place of what the key named before.
fn put_file(
    tx: &mut Tx<'_>,
    storage: &Storage,
    quotas: &Quotas,
    caller: Uid,
    new: NewFile,
) -> Result<(), Fault> {
    if new.sealed.len() > MAX_SEALED_PART {
        let text =
            format!("the file's name is too long: its sealed part must not exceed {MAX_SEALED_PART} bytes");
        return Err(refuse(RefusalKind::Malformed, text));
    }
    let manifest = StoreManifest::read(&new.manifest)
        .map_err(|error| refuse(RefusalKind::Malformed, format!("the stored file's manifest: {error}")))?;
    if !manifest.has_fair_lengths() {
        let text = "the stored file's manifest: its chunks are too short for so many; update dfs";
        return Err(refuse(RefusalKind::Malformed, text));
    }
    if let Some(unknown) = manifest.servers.iter().find(|server| !storage.planner().is_known(**server)) {
        let text =
            format!("the trackers do not know the storage node {unknown}; is it running with --trackers?");
        return Err(refuse(RefusalKind::NotFound, text));
    }
    let key = pointer_key(caller, new.key);
    if pointer(tx, &key)?.is_some_and(|known| known.request == new.request) {
        return Ok(());
    }
    let size = StoredSize::of(&manifest, &new.manifest);
    quotas.admit_stored(tx, caller, new.key, (new.sealed.len(), size))?;
    let (version, stored_ms) = (Blake3::of(&new.manifest), tx.now().wall_ms);
    let NewFile { request, sealed, .. } = new;
    let pointer = Pointer { version, sealed, stored_ms, request, size: Some(size) };
    let blobs = vec![(BlobHash(version.0), new.manifest)];
    tx.write(vec![Write { blobs, ..put(POINTER, key, &pointer) }])
}

fn get_file(tx: &Tx<'_>, caller: Uid, key: PointerKey) -> Result<StoreAnswer, Fault> {
    let none = || refuse(RefusalKind::NotFound, "you have no stored file of that name; see: list");
    let found = pointer(tx, &pointer_key(caller, key))?.ok_or_else(none)?;
    let limit = shoal_common::storage::MAX_STORE_MANIFEST;
    let manifest = tx.store().read_blob(BlobHash(found.version.0), 0, limit)?;
    let missing = || {
        let text =
            "this tracker is still fetching the file's manifest from the others; try again in a moment";
        Fault::Refused(Refusal::new(RefusalKind::Unavailable, text).retry_after(Duration::from_secs(1)))
    };
    let Pointer { version, sealed, stored_ms, .. } = found;
    let manifest = manifest.ok_or_else(missing)?;
    Ok(StoreAnswer::File(Box::new(StoredFile { version, manifest, sealed, stored_ms })))
}

fn list_files(
    tx: &Tx<'_>,
    storage: &Storage,
    caller: Uid,
    after: Option<PointerKey>,
) -> Result<StoreAnswer, Fault> {
    let mut after = after.map(|after| pointer_key(caller, after));
    let mut files = Vec::new();
    loop {
        let rows = tx.store().scan(POINTER, &caller.0, after.as_deref(), PAGE)?;
        let last = rows.len() < PAGE;
        after = rows.last().map(|row| row.key.clone());
        for row in rows.iter().filter(|row| !row.tombstone) {
            let Some((_, key)) = parse_pointer_key(&row.key) else { continue };
            let Ok(pointer) = minicbor::decode::<Pointer>(&row.value) else { continue };
            if files.len() == MAX_STORED_PAGE {
                return Ok(StoreAnswer::Files { files, more: true });
            }
            let Pointer { version, sealed, stored_ms, .. } = pointer;
            let health = storage.planner().health(caller, version).unwrap_or_default();
            files.push(StoredEntry { key, version, sealed, stored_ms, health });
        }
        if last {
            return Ok(StoreAnswer::Files { files, more: false });
        }
    }
}

/// Forgets a file; whether there was one.
fn remove_file(tx: &mut Tx<'_>, caller: Uid, key: PointerKey) -> Result<bool, Fault> {
    let key = pointer_key(caller, key);
    if pointer(tx, &key)?.is_none() {
        return Ok(false);
    }
    tx.write(vec![delete(POINTER, key)])?;
    Ok(true)
}

fn pointer(tx: &Tx<'_>, key: &[u8]) -> Result<Option<Pointer>, Fault> {
    Ok(tx.store().live(POINTER, key)?)
}

fn not_registered() -> Refusal {
    Refusal::new(
        RefusalKind::NotLoggedIn,
        "register the storage node first, and again after its connection broke",
    )
}
