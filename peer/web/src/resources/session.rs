//! Accounts and sessions.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::json;
use shoal_client::{Client, ClientError};
use shoal_common::{Password, UserName};

use super::{Site, answered, done, malformed};
use crate::answer::object;
use crate::body;
use crate::schema::answers::{LoggedIn, LoggedOut, PasswordChanged, Problem, Session, Sessions};
use crate::schema::requests::{Login, NewPassword};

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/session", get(session).post(login).delete(logout))
        .route("/api/1/session/password", post(change_password))
        .route("/api/1/sessions", get(sessions))
}

/// A session began.
#[derive(Serialize)]
struct Begun {
    #[serde(flatten)]
    login: shoal_client::LoggedIn,
    /// Whether it outlives a restart.
    kept: bool,
}

/// Who and where the client is
#[utoipa::path(
    get,
    path = "/api/1/session",
    responses((status = 200, body = Session), (status = "4XX", body = Problem))
)]
pub(super) async fn session(State(site): State<Site>) -> Response {
    object(StatusCode::OK, &json!(site.client.greeted().await))
}

/// Begin a session, after creating the account where that is wanted
#[utoipa::path(
    post,
    path = "/api/1/session",
    request_body = Login,
    responses((status = 200, body = LoggedIn), (status = "4XX", body = Problem))
)]
pub(super) async fn login(State(site): State<Site>, request: Request) -> Response {
    let login: Login = match body::read(request).await {
        Ok(login) => login,
        Err(refusal) => return refusal,
    };
    if login.password.is_empty() {
        return malformed("the password is empty");
    }
    let name = if login.create { UserName::create(&login.user) } else { UserName::refer(&login.user) };
    match name {
        Ok(user) => done(begin(&site.client, user, login).await),
        Err(error) => malformed(error),
    }
}

async fn begin(client: &Client, user: UserName, login: Login) -> Result<Begun, ClientError> {
    let password = Password::from(login.password);
    let user = match login.create {
        // It may go by another name.
        true => client.create_user(user, password.clone(), login.invite).await?.user,
        false => user,
    };
    let begun = client.login(user, password).await?;
    if login.keep {
        client.keep_session().await?;
    }
    Ok(Begun { login: begun, kept: client.keeps_session() })
}

/// End the session
#[utoipa::path(
    delete,
    path = "/api/1/session",
    responses((status = 200, body = LoggedOut), (status = "4XX", body = Problem))
)]
pub(super) async fn logout(State(site): State<Site>) -> Response {
    done(site.client.logout().await)
}

/// Change the password; all other sessions end
#[utoipa::path(
    post,
    path = "/api/1/session/password",
    request_body = NewPassword,
    responses((status = 200, body = PasswordChanged), (status = "4XX", body = Problem))
)]
pub(super) async fn change_password(State(site): State<Site>, request: Request) -> Response {
    let NewPassword { old, new } = match body::read(request).await {
        Ok(passwords) => passwords,
        Err(refusal) => return refusal,
    };
    if new.is_empty() {
        return malformed("the new password is empty");
    }
    let changed = site.client.change_password(old.map(Password::from), Password::from(new)).await;
    done(changed.map(|was_kept| json!({ "was_kept": was_kept })))
}

/// The clients on which the account is logged in
#[utoipa::path(
    get,
    path = "/api/1/sessions",
    responses((status = 200, body = Sessions), (status = "4XX", body = Problem))
)]
pub(super) async fn sessions(State(site): State<Site>) -> Response {
    answered(site.client.sessions().await.map(|sessions| json!({ "sessions": sessions })))
}
