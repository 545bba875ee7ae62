//! What an address names: a group, a file of a group, or a user who asks to join one. Percent-encoded, and checked before anything
//! is done.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;
use shoal_client::FileRef;
use shoal_common::{FileName, GroupName, UserName};

use super::malformed;

/// A group.
pub(super) struct NamedGroup(pub(super) GroupName);

/// A file of a group.
pub(super) struct NamedFile(pub(super) FileRef);

/// A user who asks to join a group.
pub(super) struct NamedRequest(pub(super) GroupName, pub(super) UserName);

impl<S: Send + Sync> FromRequestParts<S> for NamedGroup {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &S) -> Result<Self, Response> {
        let group: String = texts(parts, site).await?;
        GroupName::refer(&group).map(Self).map_err(malformed)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NamedFile {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &S) -> Result<Self, Response> {
        let (group, file): (String, String) = texts(parts, site).await?;
        match (GroupName::refer(&group), FileName::refer(&file)) {
            (Ok(group), Ok(file)) => Ok(Self(FileRef { group, file })),
            (Err(error), _) | (_, Err(error)) => Err(malformed(error)),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NamedRequest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &S) -> Result<Self, Response> {
        let (group, user): (String, String) = texts(parts, site).await?;
        match (GroupName::refer(&group), UserName::refer(&user)) {
            (Ok(group), Ok(user)) => Ok(Self(group, user)),
            (Err(error), _) | (_, Err(error)) => Err(malformed(error)),
        }
    }
}

async fn texts<T: DeserializeOwned + Send, S: Send + Sync>(
    parts: &mut Parts,
    site: &S,
) -> Result<T, Response> {
    let found: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, site).await;
    found.map(|Path(texts)| texts).map_err(|_| malformed("a name in the address is no UTF-8"))
}
