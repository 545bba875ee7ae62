//! docs/openapi.json is true: answers of a running client have the fields that it says, and no others.

use serde_json::{Value, json};
use shoal_tests::{Service, Trackers, ask_raw, random_file, until};

/// One schema of an object that is put together of several.
fn together(document: &Value, schema: &Value) -> Value {
    let mut whole = json!({ "type": "object", "properties": {}, "required": [] });
    for part in schema["allOf"].as_array().unwrap() {
        let name = part["$ref"].as_str().unwrap_or_default().trim_start_matches('#');
        let part = if name.is_empty() { part } else { document.pointer(name).unwrap() };
        for (name, property) in part["properties"].as_object().unwrap() {
            whole["properties"][name] = property.clone();
        }
        let required = part["required"].as_array().cloned().unwrap_or_default();
        whole["required"].as_array_mut().unwrap().extend(required);
    }
    whole
}

/// What is wrong with a value, by that schema.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("no {name}"));
        return faults(document, schema, value, at);
    }
    if schema["allOf"].is_array() {
        return faults(document, &together(document, schema), value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let all: Vec<_> = choices.iter().map(|choice| faults(document, choice, value, at)).collect();
        return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.iter().any(|one| one == kind) {
        return vec![format!("{at} is {kind}, not one of {types:?}")];
    }
    match value {
        Value::Array(values) => {
            values.iter().flat_map(|value| faults(document, &schema["items"], value, at)).collect()
        }
        Value::Object(fields) => {
            let known = schema["properties"].as_object().unwrap();
            let required = schema["required"].as_array().into_iter().flatten();
            let lacking = required.filter(|name| !fields.contains_key(name.as_str().unwrap()));
            let mut all: Vec<String> = lacking.map(|name| format!("{at} lacks {name}")).collect();
            for (name, value) in fields {
                match known.get(name) {
                    Some(schema) => all.extend(faults(document, schema, value, &format!("{at}.{name}"))),
                    None => all.push(format!("{at} has an unknown {name}")),
                }
            }
            all
        }
        _ => Vec::new(),
    }
}

struct Site {
    client: Service,
    document: Value,
}

impl Site {
    /// Asks for what the template describes, and compares the answer.
    fn ask(&self, method: &str, template: &str, path: &str, body: &Value, status: u16) -> Value {
        let body = body.to_string();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        let answered = ask_raw(&self.client.socket(), (head + &body).as_bytes());
        assert_eq!(answered.status, status, "{method} {path}: {answered:?}");
        let operation = &self.document["paths"][template][method.to_lowercase()];
        let name = if status == 200 { "200" } else { "4XX" };
        let schema = &operation["responses"][name]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {template} is not described");
        let faults = faults(&self.document, schema, &answered.json(), template);
        assert!(faults.is_empty(), "{method} {path}: {faults:?}: {answered:?}");
        answered.json()
    }

    fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let template = path.split('?').next().unwrap();
        let template = template.replace("/downloads/g/f.bin", "/downloads/{group}/{file}");
        let template =
            template.replace("/groups/g", "/groups/{group}").replace("/files/f.bin", "/files/{file}");
        self.ask(method, &template, path, body, 200)
    }
}

/// The bits of the pieces that are there, in base64: `A` and `=` alone while none is.
fn pieces(detail: &Value) -> &str {
    assert!(detail["pieces"]["count"].as_u64().is_some(), "{detail}");
    detail["pieces"]["have"].as_str().unwrap()
}

#[test]
fn answers_hold_what_the_document_says_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let enter = |name: &str| {
        let client = Service::start(dir.path(), name, &trackers.info(), &[]);
        let site = Site { client, document: document.clone() };
        site.ok("GET", "/api/1/session", &Value::Null);
        site.ask("GET", "/api/1/shares", "/api/1/shares", &Value::Null, 422);
        site.ok("POST", "/api/1/session", &json!({ "user": name, "password": "secret", "create": true }));
        site
    };
    let (ann, bob) = (enter("ann"), enter("bob"));
    ann.ok("POST", "/api/1/groups", &json!({ "group": "g" }));
    bob.ok("POST", "/api/1/groups/g/join", &Value::Null);
    ann.ok("GET", "/api/1/groups/g/requests", &Value::Null);
    let decide = "/api/1/groups/{group}/requests/{user}";
    ann.ask("POST", decide, "/api/1/groups/g/requests/bob", &json!({ "accept": true }), 200);
    random_file(&dir.path().join("f.bin"), 5 << 20, 3);
    ann.ok("POST", "/api/1/groups/g/files", &json!({ "path": dir.path().join("f.bin") }));
    for path in [
        "groups",
        "groups/g/files",
        "groups/g/files/f.bin/peers",
        "groups/g/members",
        "shares",
        "sessions",
        "roots",
    ] {
        ann.ok("GET", &format!("/api/1/{path}"), &Value::Null);
    }
    ann.ok("GET", &format!("/api/1/roots/list?path={}", dir.path().display()), &Value::Null);
    let window = json!({ "days": "mon-fri", "from": "08:00", "to": "18:00", "up": 500_000 });
    ann.ok("PUT", "/api/1/limits", &json!({ "up": 1_000_000, "schedule": [window] }));
    let wrong = json!({ "schedule": [{ "days": "never", "from": "08:00", "to": "18:00", "up": 1 }] });
    ann.ask("PUT", "/api/1/limits", "/api/1/limits", &wrong, 400);
    bob.ok("PUT", "/api/1/limits", &json!({ "down": 200_000 }));
    bob.ok("PUT", "/api/1/settings", &json!({ "active_downloads": 2 }));
    bob.ok("GET", "/api/1/settings", &Value::Null);
    let to = dir.path().join("to");
    bob.ok("POST", "/api/1/downloads", &json!({ "group": "g", "file": "f.bin", "folder": to }));
    // While it runs, and by whom it is served.
    let sources = || bob.ok("GET", "/api/1/downloads/g/f.bin", &Value::Null)["sources"].clone();
    until("its source is named", || sources()[0]["user"] == "ann");
    let changed = json!({ "priority": "high", "limit": 100_000, "queue": "first" });
    let detail = bob.ok("PATCH", "/api/1/downloads/g/f.bin", &changed);
    assert_eq!((&detail["priority"], &detail["limit"]), (&"high".into(), &100_000.into()), "{detail}");
    bob.ask(
        "PATCH",
        "/api/1/downloads/{group}/{file}",
        "/api/1/downloads/g/f.bin",
        &json!({ "priority": "x" }),
        400,
    );
    until("a piece is there", || {
        pieces(&bob.ok("GET", "/api/1/downloads/g/f.bin", &Value::Null)).contains(|c| c != 'A' && c != '=')
    });
    bob.ok("POST", "/api/1/downloads/g/f.bin/pause", &Value::Null);
    // They are known of one that is paused, too.
    let paused = bob.ok("GET", "/api/1/downloads/g/f.bin", &Value::Null);
    assert!(pieces(&paused).contains(|c| c != 'A' && c != '='), "{paused}");
    bob.ok("PATCH", "/api/1/downloads/g/f.bin", &json!({ "priority": "normal", "limit": 0 }));
    bob.ok("PUT", "/api/1/limits", &json!({ "down": 0 }));
    bob.ok("POST", "/api/1/downloads/g/f.bin/resume", &Value::Null);
    until("it is there", || bob.ok("GET", "/api/1/downloads", &Value::Null)["downloads"][0]["state"] == "C");
    let whole = bob.ok("GET", "/api/1/downloads/g/f.bin", &Value::Null);
    assert!(!pieces(&whole).contains('A'), "{whole}");
    let moved = dir.path().join("moved");
    let path = bob.ok("POST", "/api/1/downloads/g/f.bin/move", &json!({ "folder": moved }))["path"].clone();
    assert_eq!(path, json!(moved.join("f.bin")));
    bob.ok("GET", "/api/1/groups/g/files", &Value::Null);
    bob.ok("GET", "/api/1/explain", &Value::Null);
    let explain = "/api/1/explain/{group}/{file}";
    bob.ask("GET", explain, "/api/1/explain/g/f.bin", &Value::Null, 200);
    bob.ok("POST", "/api/1/downloads/g/f.bin/cancel", &Value::Null);
    bob.ok("DELETE", "/api/1/groups/g/files/f.bin", &Value::Null);
    bob.ok("POST", "/api/1/session/password", &json!({ "new": "another" }));
    bob.ok("POST", "/api/1/groups/g/leave", &Value::Null);
    bob.ok("DELETE", "/api/1/session", &Value::Null);
    let own = ask_raw(&ann.client.socket(), b"GET /api/1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(own.json(), document);
}
