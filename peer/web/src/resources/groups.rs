//! Groups, their members, and who asks to join them.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use shoal_common::GroupName;
use shoal_common::tracker_api::UserEntry;

use super::named::{NamedGroup, NamedRequest};
use super::{Site, done, found, malformed};
use crate::body;

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/groups", get(groups).post(create))
        .route("/api/1/groups/{group}/join", post(join))
        .route("/api/1/groups/{group}/leave", post(leave))
        .route("/api/1/groups/{group}/members", get(members))
        .route("/api/1/groups/{group}/requests", get(requests))
        .route("/api/1/groups/{group}/requests/{user}", post(decide))
}

/// A group that is to be created.
#[derive(Deserialize)]
struct NewGroup {
    group: String,
}

/// What is decided about a join request.
#[derive(Deserialize)]
struct Decision {
    accept: bool,
}

async fn groups(State(site): State<Site>) -> Response {
    found(site.client.groups().await.map(|groups| json!({ "groups": groups })))
}

async fn create(State(site): State<Site>, request: Request) -> Response {
    let NewGroup { group } = match body::read(request).await {
        Ok(group) => group,
        Err(refusal) => return refusal,
    };
    match GroupName::create(&group) {
        Ok(group) => done(site.client.create_group(group).await),
        Err(error) => malformed(&error.to_string()),
    }
}

async fn join(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    done(site.client.join_group(&group).await)
}

async fn leave(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    done(site.client.leave_group(&group).await)
}

async fn members(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    found(site.client.members(&group).await.map(|users| json!({ "members": names(&users) })))
}

async fn requests(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    found(site.client.requests(&group).await.map(|users| json!({ "requests": names(&users) })))
}

async fn decide(
    State(site): State<Site>,
    NamedRequest(group, user): NamedRequest,
    request: Request,
) -> Response {
    let Decision { accept } = match body::read(request).await {
        Ok(decision) => decision,
        Err(refusal) => return refusal,
    };
    done(site.client.decide(group, user, accept).await)
}

fn names(users: &[UserEntry]) -> Vec<&shoal_common::UserName> {
    users.iter().map(|user| &user.name).collect()
}
