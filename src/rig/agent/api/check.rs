//! What an agent looks at before it asks whose call it is (pure); the words are a real agent's.

use uuid::Uuid;

use super::ApiReply;
use crate::mesos::libprocess::framing::ActorRequest;
use crate::mesos::messages::call::Type;
use crate::mesos::messages::task_status::Source;
use crate::mesos::messages::{Call, Message as _, TaskState, TaskStatus};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paths {
    Any,
    /// On a domain socket: `/slave(1)/api/v1/executor` letter by letter.
    Long,
}

/// The call in a request, or the answer to one that holds none.
pub(super) fn call(request: &ActorRequest, paths: Paths) -> Result<Call, ApiReply> {
    let long = format!("/{}/api/v1/executor", crate::rig::agent::hub::ACTOR);
    let known = request.path == long || request.path == "/api/v1/executor";
    match paths {
        Paths::Long if request.path != long => return Err(ApiReply::refused(403, "")),
        Paths::Any if !known => return Err(ApiReply::refused(404, "404 Not Found.")),
        _ => {}
    }
    if request.method != "POST" {
        return Err(ApiReply::refused(405, "Expecting one of { 'POST' }, but received a different method"));
    }
    match request.header("content-type") {
        None => return Err(ApiReply::refused(400, "Expecting 'Content-Type' to be present")),
        Some(PROTOBUF) => {}
        Some(JSON) => return Err(ApiReply::refused(415, "this agent takes application/x-protobuf only")),
        Some(_) => {
            let text = format!("Expecting 'Content-Type' of {JSON} or {PROTOBUF}");
            return Err(ApiReply::Refused(415, text));
        }
    }
    let call = Call::decode(request.body.as_slice())
        .map_err(|_| ApiReply::refused(400, "Failed to parse body into Call protobuf"))?;
    let invalid = |text: &str| ApiReply::Refused(400, format!("Failed to validate Executor::Call: {text}"));
    validate(&call).map_err(|text| invalid(&text))?;
    if call.r#type() == Type::Subscribe && !accepts(request.header("accept")) {
        return Err(ApiReply::Refused(406, format!("Expecting 'Accept' to allow '{PROTOBUF}' or '{JSON}'")));
    }
    Ok(call)
}

/// What stands behind the scheme, letter by letter `Bearer`.
pub(super) fn token(request: &ActorRequest) -> Option<String> {
    Some(request.header("authorization")?.strip_prefix("Bearer ")?.to_owned())
}

/// Of several kinds JSON would win, which is not spoken here.
fn accepts(accept: Option<&str>) -> bool {
    let kinds =
        accept.unwrap_or("*/*").split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.into_iter().any(|kind| [PROTOBUF, "application/*", "*/*"].contains(&kind))
}

fn validate(call: &Call) -> Result<(), String> {
    let present =
        |there: bool, what: &str| there.then_some(()).ok_or(format!("Expecting '{what}' to be present"));
    present(call.r#type.is_some(), "type")?;
    match call.r#type() {
        Type::Subscribe => present(call.subscribe.is_some(), "subscribe"),
        Type::Message => present(call.message.is_some(), "message"),
        Type::Update => {
            let update = call.update.as_ref();
            present(update.is_some(), "update")?;
            update.map_or(Ok(()), |update| status(call, &update.status))
        }
        Type::Heartbeat | Type::Unknown => Ok(()),
    }
}

fn status(call: &Call, status: &TaskStatus) -> Result<(), String> {
    let uuid = status.uuid.as_deref().ok_or("Expecting 'uuid' to be present")?;
    if !Uuid::from_slice(uuid).is_ok_and(|uuid| (1..=5).contains(&uuid.get_version_num())) {
        return Err("Not a valid UUID".to_owned());
    }
    let task = &status.task_id;
    if status.source != Some(Source::Executor.into()) {
        return Err(format!(
            "Received Call from executor {} with invalid source, expecting 'SOURCE_EXECUTOR'",
            call.executor_id
        ));
    }
    if let Some(other) = status.executor_id.as_ref().filter(|own| **own != call.executor_id) {
        return Err(format!(
            "ExecutorID in Call: {} does not match ExecutorID in TaskStatus: {other}",
            call.executor_id
        ));
    }
    if status.state == i32::from(TaskState::TaskStaging) {
        return Err(format!("Received TASK_STAGING from executor for task {task} which is not allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut ActorRequest, &mut Call)) -> ActorRequest {
        let mut call = Call {
            executor_id: "e".into(),
            framework_id: "f".into(),
            r#type: Some(Type::Update.into()),
            ..Call::default()
        };
        let status = TaskStatus {
            uuid: Some(Uuid::from_u128(0x4000_8000_0000_0000_0000).as_bytes().to_vec()),
            source: Some(Source::Executor.into()),
            ..TaskStatus::new("t", TaskState::TaskRunning)
        };
        call.update = Some(crate::mesos::messages::call::Update { status });
        let mut request = ActorRequest {
            method: "POST".into(),
            path: "/slave(1)/api/v1/executor".into(),
            sender: None,
            close: false,
            headers: vec![("content-type".into(), PROTOBUF.into()), ("accept".into(), PROTOBUF.into())],
            body: Vec::new(),
        };
        change(&mut request, &mut call);
        if request.body.is_empty() {
            request.body = call.encode_to_vec();
        }
        request
    }

    fn refusal(paths: Paths, change: impl FnOnce(&mut ActorRequest, &mut Call)) -> (u16, String) {
        match call(&request(change), paths) {
            Err(ApiReply::Refused(status, text)) => (status, text),
            other => panic!("{other:?}"),
        }
    }

    fn told(change: impl FnOnce(&mut TaskStatus)) -> String {
        let (status, text) = refusal(Paths::Any, |_, call| change(&mut call.update.as_mut().unwrap().status));
        assert_eq!(status, 400);
        text.strip_prefix("Failed to validate Executor::Call: ").unwrap().to_owned()
    }

    #[test]
    fn a_correct_update_is_accepted() {
        assert!(call(&request(|_, _| ()), Paths::Long).is_ok());
        assert!(call(&request(|request, _| request.path = "/api/v1/executor".into()), Paths::Any).is_ok());
    }

    #[test]
    fn requests_with_a_wrong_head_are_refused() {
        let header = |value: &'static str| {
            move |request: &mut ActorRequest, _: &mut Call| request.headers[0].1 = value.into()
        };
        assert_eq!(refusal(Paths::Any, header("text/plain")).0, 415);
        assert_eq!(refusal(Paths::Any, header("application/x-protobuf; charset=utf-8")).0, 415);
        assert_eq!(
            refusal(Paths::Any, |request, _| request.headers.clear()),
            (400, "Expecting 'Content-Type' to be present".into())
        );
        assert_eq!(refusal(Paths::Any, |request, _| request.method = "GET".into()).0, 405);
        assert_eq!(refusal(Paths::Any, |request, _| request.path = "/api/v1".into()).0, 404);
        assert_eq!(refusal(Paths::Long, |request, _| request.path = "/api/v1/executor".into()).0, 403);
        let (status, text) = refusal(Paths::Any, |request, call| {
            request.headers[1].1 = "text/html".into();
            call.r#type = Some(Type::Subscribe.into());
            call.subscribe = Some(Default::default());
        });
        let expected = "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'";
        assert_eq!((status, text.as_str()), (406, expected));
    }

    #[test]
    fn calls_with_a_wrong_body_are_refused() {
        assert_eq!(refusal(Paths::Any, |request, _| request.body = vec![0xff]).0, 400);
        let without = |kind: Type| {
            refusal(Paths::Any, |_, call| {
                (call.r#type, call.update) = (Some(kind.into()), None);
            })
            .1
        };
        for (kind, what) in
            [(Type::Subscribe, "subscribe"), (Type::Update, "update"), (Type::Message, "message")]
        {
            let expected = format!("Failed to validate Executor::Call: Expecting '{what}' to be present");
            assert_eq!(without(kind), expected);
        }
        let (_, text) = refusal(Paths::Any, |_, call| call.r#type = None);
        assert_eq!(text, "Failed to validate Executor::Call: Expecting 'type' to be present");
    }

    #[test]
    fn incorrect_updates_are_refused() {
        assert_eq!(told(|status| status.uuid = None), "Expecting 'uuid' to be present");
        assert_eq!(told(|status| status.uuid = Some(vec![1; 15])), "Not a valid UUID");
        assert_eq!(told(|status| status.uuid = Some((0..16).collect())), "Not a valid UUID");
        let source = told(|status| status.source = None);
        assert!(source.ends_with("with invalid source, expecting 'SOURCE_EXECUTOR'"), "{source}");
        assert_eq!(
            told(|status| status.executor_id = Some("other".into())),
            "ExecutorID in Call: e does not match ExecutorID in TaskStatus: other"
        );
        assert!(told(|status| status.state = TaskState::TaskStaging.into()).contains("TASK_STAGING"));
    }
}
