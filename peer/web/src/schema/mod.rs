//! What requests and answers of the resources hold, as the OpenAPI document says it. Requests are read as these types; a test
//! compares answers of a running client with them.

pub mod answers;
pub mod downloads;
pub mod requests;
