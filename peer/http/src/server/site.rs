//! What all virtual servers of one process serve: the files, their digests, and the ports that they are served on.

use std::sync::OnceLock;

use crate::server::catalog::Catalog;
use crate::server::digests::DigestStore;

/// See the module.
#[derive(Debug)]
pub(super) struct Site {
    catalog: Catalog,
    digests: DigestStore,
    ports: OnceLock<Vec<u16>>,
}

impl Site {
    pub(super) fn new(catalog: Catalog, digests: DigestStore) -> Self {
        Self { catalog, digests, ports: OnceLock::new() }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn digests(&self) -> &DigestStore {
        &self.digests
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
