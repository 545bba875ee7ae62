//! The tickets that this client shows, and the keys by which it judges those of others.
