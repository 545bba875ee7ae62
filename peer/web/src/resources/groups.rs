//! Groups, their members, and who asks to join them.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;
use shoal_common::GroupName;
use shoal_common::tracker_api::UserEntry;

use super::named::{NamedGroup, NamedRequest};
use super::{Site, answered, done, malformed};
use crate::body;
use crate::schema::answers::{Done, GroupCreated, Groups, Members, Problem, Requests};
use crate::schema::requests::{Decision, NewGroup};

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/groups", get(groups).post(create))
        .route("/api/1/groups/{group}/join", post(join))
        .route("/api/1/groups/{group}/leave", post(leave))
        .route("/api/1/groups/{group}/members", get(members))
        .route("/api/1/groups/{group}/requests", get(requests))
        .route("/api/1/groups/{group}/requests/{user}", post(decide))
}

/// All groups in the network
#[utoipa::path(
    get,
    path = "/api/1/groups",
    responses((status = 200, body = Groups), (status = "4XX", body = Problem))
)]
pub(super) async fn groups(State(site): State<Site>) -> Response {
    answered(site.client.groups().await.map(|groups| json!({ "groups": groups })))
}

/// Create a group
#[utoipa::path(
    post,
    path = "/api/1/groups",
    request_body = NewGroup,
    responses((status = 200, body = GroupCreated), (status = "4XX", body = Problem))
)]
pub(super) async fn create(State(site): State<Site>, request: Request) -> Response {
    let NewGroup { group } = match body::read(request).await {
        Ok(group) => group,
        Err(refusal) => return refusal,
    };
    match GroupName::create(&group) {
        Ok(group) => done(site.client.create_group(group).await),
        Err(error) => malformed(error),
    }
}

/// Ask to join a group
#[utoipa::path(
    post,
    path = "/api/1/groups/{group}/join",
    params(("group" = String, Path)),
    responses((status = 200, body = Done), (status = "4XX", body = Problem))
)]
pub(super) async fn join(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    done(site.client.join_group(&group).await)
}

/// Leave a group, and stop sharing in it
#[utoipa::path(
    post,
    path = "/api/1/groups/{group}/leave",
    params(("group" = String, Path)),
    responses((status = 200, body = Done), (status = "4XX", body = Problem))
)]
pub(super) async fn leave(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    done(site.client.leave_group(&group).await)
}

/// A group's members
#[utoipa::path(
    get,
    path = "/api/1/groups/{group}/members",
    params(("group" = String, Path)),
    responses((status = 200, body = Members), (status = "4XX", body = Problem))
)]
pub(super) async fn members(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    answered(site.client.members(&group).await.map(|users| json!({ "members": names(&users) })))
}

/// Who asks to join a group
#[utoipa::path(
    get,
    path = "/api/1/groups/{group}/requests",
    params(("group" = String, Path)),
    responses((status = 200, body = Requests), (status = "4XX", body = Problem))
)]
pub(super) async fn requests(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    answered(site.client.requests(&group).await.map(|users| json!({ "requests": names(&users) })))
}

/// Accept or reject a join request
#[utoipa::path(
    post,
    path = "/api/1/groups/{group}/requests/{user}",
    params(("group" = String, Path), ("user" = String, Path)),
    request_body = Decision,
    responses((status = 200, body = Done), (status = "4XX", body = Problem))
)]
pub(super) async fn decide(
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
