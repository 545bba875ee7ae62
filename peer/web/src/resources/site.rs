//! What the handlers of resources work with.

use shoal_client::Client;

/// The client.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) client: Client,
}
