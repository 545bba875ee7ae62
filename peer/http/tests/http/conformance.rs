//! The HTTP source does what the engine expects of every source: the engine's own suite.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Lab, Manners};
use shoal_common::Layout;
use shoal_engine::conformance::{Behaviour, Stand, check};
use shoal_http::client;
use shoal_http::source::HttpSource;

/// Sources that talk to servers of the lab, which live as long as the stand.
struct HttpStand {
    labs: Mutex<Vec<Lab>>,
    ranges: bool,
}

impl Stand for HttpStand {
    type Source = HttpSource;

    async fn source(&self, bytes: Arc<[u8]>, layout: Layout, behaviour: Behaviour) -> HttpSource {
        let all = u64::MAX;
        let mut manners = match behaviour {
            // A server says nothing of what it holds.
            Behaviour::Honest | Behaviour::Floods => Manners::default(),
            Behaviour::Lost(_) => Manners { refuses: Some("404 Not Found".into()), ..Manners::default() },
            Behaviour::Short => Manners { short: true, ..Manners::default() },
            Behaviour::Long => Manners { long: true, ..Manners::default() },
            Behaviour::Wrong => Manners { wrong: Some(0..all), ..Manners::default() },
            Behaviour::SilentAfter(bytes) => Manners { silent_after: Some(bytes), ..Manners::default() },
            Behaviour::GoneAfter(bytes) => Manners { gone_after: Some(bytes), ..Manners::default() },
            Behaviour::Busy(_) | Behaviour::Refuses(_) => {
                Manners { refuses: Some("503 Busy\r\nRetry-After: 1".into()), ..Manners::default() }
            }
        };
        manners.no_ranges = !self.ranges;
        let lab = Lab::start(&Arc::new(bytes.to_vec()), manners);
        let url = lab.url("file.bin").parse().unwrap();
        self.labs.lock().unwrap().push(lab);
        HttpSource::new(client::build(false).unwrap(), url, layout.size(), 4)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_source_conforms() {
    check(&HttpStand { labs: Mutex::default(), ranges: true }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_with_a_server_that_ignores_ranges() {
    let stand = HttpStand { labs: Mutex::default(), ranges: false };
    let run = check(&stand);
    tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
}
