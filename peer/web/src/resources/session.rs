//! Accounts and sessions.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shoal_client::{Client, ClientError, LoggedIn};
use shoal_common::{Password, UserName};
use zeroize::Zeroizing;

use super::{Site, done, found, malformed};
use crate::answer::object;
use crate::body;

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/session", get(session).post(login).delete(logout))
        .route("/api/1/session/password", post(change_password))
        .route("/api/1/sessions", get(sessions))
}

/// Who is to be logged in.
#[derive(Deserialize)]
struct Login {
    /// The account.
    user: String,
    /// Its password.
    password: Zeroizing<String>,
    /// Whether the session outlives a restart of the client.
    #[serde(default)]
    keep: bool,
    /// Whether the account is created first.
    #[serde(default)]
    create: bool,
    /// The code that an operator gave, where one is needed for an account.
    #[serde(default)]
    invite: Option<String>,
}

/// A new password.
#[derive(Deserialize)]
struct NewPassword {
    /// The present one; without it the session is proof enough.
    #[serde(default)]
    old: Option<Zeroizing<String>>,
    /// The new one.
    new: Zeroizing<String>,
}

/// A session began.
#[derive(Serialize)]
struct Begun {
    #[serde(flatten)]
    login: LoggedIn,
    /// Whether it outlives a restart.
    kept: bool,
}

async fn session(State(site): State<Site>) -> Response {
    object(StatusCode::OK, &json!(site.client.greeted().await))
}

async fn login(State(site): State<Site>, request: Request) -> Response {
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
        Err(error) => malformed(&error.to_string()),
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

async fn logout(State(site): State<Site>) -> Response {
    done(site.client.logout().await)
}

async fn change_password(State(site): State<Site>, request: Request) -> Response {
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

async fn sessions(State(site): State<Site>) -> Response {
    found(site.client.sessions().await.map(|sessions| json!({ "sessions": sessions })))
}
