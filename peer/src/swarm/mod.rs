//! Files served to, and fetched from, other peers on the bulk lane.
