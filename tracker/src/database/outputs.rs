//! Carries out what the replica asks for, and what an operator orders of it.

use std::time::Duration;

use shoal_replica::{Alarm, Output, TrackerNo, Warning};

use super::{DatabaseThread, Fault, Tx};
use crate::sync_log::sync_span;

/// Alarms that are remembered for `status`.
const MAX_LAST_ALARMS: usize = 8;

impl Tx<'_> {
    /// Lets the records that this tracker left out be removed here, even if others hold them. False if nothing was held back.
    pub fn allow_removal(&mut self, peer: TrackerNo) -> bool {
        self.replica.allow_removal(peer)
    }

    /// Starts to give the present time to all records whose time is impossible.
    ///
    /// # Errors
    /// When the database fails.
    pub fn restamp(&mut self) -> Result<(), Fault> {
        Ok(self.replica.restamp(self.store, self.now)?)
    }
}

impl DatabaseThread {
    /// Carries out the replica's outputs, now that what they rest on is durable.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Send { to, frame } => {
                    drop(sync_span(self.config.me, to, &frame));
                    self.links.send(to, frame);
                }
                Output::Disconnect { peer, reason } => self.links.close(peer, &reason.to_string()),
                Output::Shun { peer, ms } => self.links.shun(peer, Duration::from_millis(ms)),
                Output::Pause { peer, ms } => self.links.pause(peer, Duration::from_millis(ms)),
                Output::Acked { write, copies } => {
                    let alone = copies == 1 && self.config.configured.len() > 1;
                    if alone && !self.alone {
                        tracing::warn!("writes are durable here only: no other tracker is connected");
                    }
                    self.alone = alone;
                    if let Some(finish) = self.waiting.remove(&write) {
                        finish();
                    }
                }
                Output::Alarm(alarm) => self.alarm(&alarm),
                Output::Warning(Warning::Restamped { rows }) => {
                    tracing::warn!(
                        "restamp: {rows} records with an impossible time were given the present one"
                    );
                }
                Output::Warning(warning) => tracing::warn!(?warning, "warning"),
            }
        }
    }

    fn alarm(&mut self, alarm: &Alarm) {
        let text = alarm.text();
        self.alarms += 1;
        tracing::error!(?alarm, "alarm: {text}");
        self.last_alarms.retain(|known| *known != text);
        self.last_alarms.push_back(text);
        if self.last_alarms.len() > MAX_LAST_ALARMS {
            self.last_alarms.pop_front();
        }
    }
}
