//! What the client knows, to be looked at: each address gives what a command of the prompt lists, under the same keys. Nothing is
//! changed here.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use shoal_client::{Client, ClientError, FileRef};
use shoal_common::tracker_api::UserEntry;
use shoal_common::{FileName, GroupName};
use shoal_session::text;

use crate::answer::{object, problem};

pub(crate) fn router(client: Client) -> Router {
    Router::new()
        .route("/api/1/session", get(session))
        .route("/api/1/groups", get(groups))
        .route("/api/1/groups/{group}/files", get(files))
        .route("/api/1/groups/{group}/files/{file}/peers", get(peers))
        .route("/api/1/groups/{group}/members", get(members))
        .route("/api/1/groups/{group}/requests", get(requests))
        .route("/api/1/downloads", get(downloads))
        .route("/api/1/explain", get(explain_all))
        .route("/api/1/explain/{group}/{file}", get(explain))
        .route("/api/1/limits", get(limits))
        .with_state(client)
}

async fn session(State(client): State<Client>) -> Response {
    object(StatusCode::OK, &json!(client.greeted().await))
}

async fn groups(State(client): State<Client>) -> Response {
    answer(client.groups().await.map(|groups| json!({ "groups": groups })))
}

async fn files(State(client): State<Client>, Path(group): Path<String>) -> Response {
    let group = match GroupName::refer(&group) {
        Ok(group) => group,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    answer(client.files(&group).await.map(|files| json!({ "group": group, "files": files })))
}

async fn peers(State(client): State<Client>, Path((group, file)): Path<(String, String)>) -> Response {
    let file = match (GroupName::refer(&group), FileName::refer(&file)) {
        (Ok(group), Ok(file)) => FileRef { group, file },
        (Err(error), _) | (_, Err(error)) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    answer(client.peers(&file).await.map(|peers| json!({ "peers": peers })))
}

async fn members(State(client): State<Client>, Path(group): Path<String>) -> Response {
    let group = match GroupName::refer(&group) {
        Ok(group) => group,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    answer(client.members(&group).await.map(|users| json!({ "members": names(&users) })))
}

async fn requests(State(client): State<Client>, Path(group): Path<String>) -> Response {
    let group = match GroupName::refer(&group) {
        Ok(group) => group,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    answer(client.requests(&group).await.map(|users| json!({ "requests": names(&users) })))
}

async fn downloads(State(client): State<Client>) -> Response {
    let rows: Vec<Value> = client
        .downloads()
        .iter()
        .map(|row| {
            let mut value = json!(row);
            value["size"] = row.size.into();
            value["verified"] = row.verified.into();
            value["seconds_left"] = row.eta.map(|eta| eta.as_secs()).into();
            value
        })
        .collect();
    object(StatusCode::OK, &json!({ "downloads": rows }))
}

async fn explain_all(State(client): State<Client>) -> Response {
    answer(client.explain(None).await.map(|explanations| json!({ "explanations": explanations })))
}

async fn explain(State(client): State<Client>, Path((group, file)): Path<(String, String)>) -> Response {
    let file = match (GroupName::refer(&group), FileName::refer(&file)) {
        (Ok(group), Ok(file)) => FileRef { group, file },
        (Err(error), _) | (_, Err(error)) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    answer(client.explain(Some(&file)).await.map(|explanations| json!({ "explanations": explanations })))
}

async fn limits(State(client): State<Client>) -> Response {
    answer(
        client.limits().await.map(|(up, down)| json!({ "up": up.unwrap_or(0), "down": down.unwrap_or(0) })),
    )
}

fn names(users: &[UserEntry]) -> Vec<&shoal_common::UserName> {
    users.iter().map(|user| &user.name).collect()
}

fn answer(found: Result<Value, ClientError>) -> Response {
    match found {
        Ok(value) => object(StatusCode::OK, &value),
        Err(error) => {
            let text = text::error_line(&error.to_string());
            let problem = json!({ "ok": false, "error": text, "code": error.code() });
            object(StatusCode::UNPROCESSABLE_ENTITY, &problem)
        }
    }
}
