//! What all virtual servers of one process have in common: the files, their digests, the ports that they are served on, and
//! what connections may take.

use std::sync::OnceLock;

use crate::server::buffers::Buffers;
use crate::server::catalog::Catalog;
use crate::server::digests::DigestStore;
use crate::server::places::Places;

/// See the module.
#[derive(Debug)]
pub(super) struct Site {
    catalog: Catalog,
    digests: DigestStore,
    ports: OnceLock<Vec<u16>>,
    places: Places,
    buffers: Buffers,
}

impl Site {
    pub(super) fn new(catalog: Catalog, digests: DigestStore, places: Places) -> Self {
        Self { catalog, digests, ports: OnceLock::new(), places, buffers: Buffers::new() }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn digests(&self) -> &DigestStore {
        &self.digests
    }

    /// The connections of all virtual servers.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// What is kept in memory for the clients of all virtual servers.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Says once which ports are listened on.
    pub(super) fn listens_on(&self, ports: Vec<u16>) {
        let _ = self.ports.set(ports);
    }

    /// The ports of all virtual servers.
    pub(super) fn ports(&self) -> &[u16] {
        self.ports.get().map_or(&[], Vec::as_slice)
    }
}
