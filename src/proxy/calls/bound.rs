//! Calls about containers that are bound, or are to be.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, HOST};
use hyper::http::{request, response};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde_json::Value;

use crate::error::{chain, Failure};
use crate::proxy::answer::{self, ClientAnswer};
use crate::proxy::create::{self, CalicoCreation, Creation};
use crate::proxy::creates;
use crate::proxy::forward::{self, whole, Connection};
use crate::proxy::show::{self, Shown};
use crate::proxy::wiring::Wiring;
use crate::proxy::Shared;

/// What a call did to a container, told after Docker has answered.
pub(super) enum CallKind {
    Start,
    Restart,
    Stop,
    /// A signal that may not be its end.
    Signal,
    Remove {
        force: bool,
    },
}

/// `POST /containers/create`.
pub(super) async fn create(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    name: Option<&str>,
    from: &Connection,
) -> ClientAnswer {
    let (head, body) = match whole(request).await {
        Ok(parts) => parts,
        Err(refusal) => return refusal,
    };
    let creation = match create::read(&body, name, &shared.config) {
        // An executor of ours wires its containers itself; its journal says which they are.
        Ok(Creation::Calico(_)) if shared.wiring.is_executors(name) => Creation::Plain,
        Ok(creation) => creation,
        Err(failure) => return refuse(shared, &failure),
    };
    let Creation::Calico(creation) = creation else { return unchanged(shared, head, body, from).await };
    let CalicoCreation { body, bound, warnings } = *creation;
    // Gone when the container is bound.
    let _note = match creates::note(&shared.config, name, &body) {
        Ok(note) => note,
        Err(failure) => return refuse_with(shared, StatusCode::INTERNAL_SERVER_ERROR, &failure),
    };
    let response = match send(shared, forward::with_body(head, body.into()), from).await {
        Ok(response) => response,
        Err(answer) => return answer,
    };
    if response.status() != StatusCode::CREATED {
        return response.map(Either::Left);
    }
    let (head, body) = match collected(response).await {
        Ok(parts) => parts,
        Err(answer) => return answer,
    };
    let Ok(mut created) = serde_json::from_slice::<Value>(&body) else {
        return answer::error(StatusCode::BAD_GATEWAY, "Docker's answer to the create cannot be understood");
    };
    let id = created["Id"].as_str().unwrap_or_default().to_owned();
    // The client hears of the container when any program can start it.
    if let Err(failure) = shared.wiring.bind(&id, bound).await {
        tracing::warn!("the container {id} cannot be bound: {failure}");
        remove(shared, &id, from).await;
        return refuse_with(shared, StatusCode::INTERNAL_SERVER_ERROR, &failure);
    }
    if !warnings.is_empty() {
        let mut all = created["Warnings"].as_array().cloned().unwrap_or_default();
        all.extend(warnings.into_iter().map(Value::from));
        created["Warnings"] = all.into();
    }
    with_body(head, created.to_string().into())
}

/// A container that cannot be bound must not stay: it could never start.
async fn remove(shared: &Arc<Shared>, id: &str, from: &Connection) {
    // With the volumes that were made for it alone.
    let uri = Uri::try_from(format!("/containers/{id}?force=1&v=1"));
    let Ok(uri) = uri else { return };
    let mut request = Request::new(Either::Right(Full::default()));
    (*request.method_mut(), *request.uri_mut()) = (Method::DELETE, uri);
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    if let Err(error) = forward::send(&shared.upstream, request, from).await {
        tracing::warn!("the container {id} stays, and cannot start: {}", chain(&error));
    }
}

/// A call that passes unchanged, and that the keeper of a bound container hears of.
pub(super) async fn told(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    container: &str,
    kind: CallKind,
    from: &Connection,
) -> ClientAnswer {
    let wiring = &shared.wiring;
    // Asked before: what is removed has no name any more.
    let found = wiring.find(container).await;
    match (&found, &kind) {
        (Ok(None), _) => return forward::pass(shared, request, from).await,
        (Ok(Some(id)), CallKind::Start) => wiring.prepare_ahead(id),
        // Docker keeps the call waiting as long as a start does.
        (Ok(Some(id)), CallKind::Stop | CallKind::Remove { force: true }) => wiring.give_up_start(id),
        _ => {}
    }
    let answer = forward::pass(shared, request, from).await;
    let id = match found {
        Ok(id) => id,
        // It was about to start; Docker has made the call wait for that.
        Err(_) => wiring.id_of(container).await,
    };
    let Some(id) = id else { return answer };
    let status = answer.status();
    // 304: it runs already, or is stopped already.
    let done = status.is_success() || status == StatusCode::NOT_MODIFIED;
    match kind {
        CallKind::Start | CallKind::Restart if !done => wiring.start_failed(&id),
        // 409: what does not run cannot be killed.
        CallKind::Stop | CallKind::Signal if done || status == StatusCode::CONFLICT => wiring.stopped(&id),
        CallKind::Remove { .. } if done => wiring.removed(&id),
        _ => {}
    }
    answer
}

/// A call that a bound container cannot have.
pub(super) async fn refused(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    container: &str,
    failure: Failure,
    from: &Connection,
) -> ClientAnswer {
    match shared.wiring.id_of(container).await {
        Some(_) => refuse(shared, &failure),
        None => forward::pass(shared, request, from).await,
    }
}

/// `POST /networks/{id}/connect` and `disconnect`.
pub(super) async fn network(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
) -> ClientAnswer {
    if shared.wiring.is_empty() {
        return forward::pass(shared, request, from).await;
    }
    let (head, body) = match whole(request).await {
        Ok(parts) => parts,
        Err(refusal) => return refusal,
    };
    if let Some(container) = create::network_call(&body) {
        if shared.wiring.id_of(&container).await.is_some() {
            return refuse_with(shared, StatusCode::CONFLICT, &create::network_refused());
        }
    }
    unchanged(shared, head, body, from).await
}

/// Swarm's services: dockerd makes their tasks itself, so that no proxy sees them.
pub(super) async fn service(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
) -> ClientAnswer {
    let (head, body) = match whole(request).await {
        Ok(parts) => parts,
        Err(refusal) => return refusal,
    };
    if let Err(failure) = create::refuse_service(&body) {
        return refuse(shared, &failure);
    }
    unchanged(shared, head, body, from).await
}

/// `GET /containers/{id}/json` and `GET /containers/json`: bound containers look as their clients made them.
pub(super) async fn shown(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
) -> ClientAnswer {
    if shared.wiring.is_empty() {
        return forward::pass(shared, request, from).await;
    }
    let response = match send(shared, request.map(Either::Left), from).await {
        Ok(response) => response,
        Err(answer) => return answer,
    };
    if response.status() != StatusCode::OK {
        return response.map(Either::Left);
    }
    let (head, body) = match collected(response).await {
        Ok(parts) => parts,
        Err(answer) => return answer,
    };
    match changed(&shared.wiring, &body).await {
        Some(changed) => with_body(head, changed.into()),
        None => Response::from_parts(head, Either::Right(Full::from(body))),
    }
}

/// The answer with bound containers changed; `None` where there are none in it.
async fn changed(wiring: &Wiring, body: &[u8]) -> Option<String> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let of = |entry: &Value| wiring.view(entry.get("Id")?.as_str()?);
    let bound = match &answer {
        Value::Array(entries) => entries.iter().any(|entry| of(entry).is_some()),
        entry => of(entry).is_some(),
    };
    if !bound {
        return None;
    }
    let network_ids = wiring.network_ids().await;
    let change = |entry: &mut Value, show: fn(&mut Value, &Shown<'_>)| {
        let Some(view) = entry.get("Id").and_then(Value::as_str).and_then(|id| wiring.view(id)) else {
            return;
        };
        let (ports, running) = (view.ports(), view.sight.is_some());
        let bound = &view.binding.bound;
        let addresses = view.addresses();
        show(entry, &Shown { bound, addresses, ports: &ports, network_ids: &network_ids, running });
    };
    match &mut answer {
        Value::Array(entries) => entries.iter_mut().for_each(|entry| change(entry, show::listed)),
        entry => change(entry, show::inspect),
    }
    Some(answer.to_string())
}

fn refuse(shared: &Arc<Shared>, failure: &Failure) -> ClientAnswer {
    refuse_with(shared, StatusCode::BAD_REQUEST, failure)
}

fn refuse_with(shared: &Arc<Shared>, status: StatusCode, failure: &Failure) -> ClientAnswer {
    shared.counts.refused(failure.code);
    answer::refused(status, failure)
}

type Sent = Request<Either<Incoming, Full<Bytes>>>;

async fn send(
    shared: &Arc<Shared>,
    request: Sent,
    from: &Connection,
) -> Result<Response<Incoming>, ClientAnswer> {
    let sent = forward::send(&shared.upstream, request, from).await;
    sent.map_err(|error| error.answer(&shared.upstream))
}

/// Docker's answer to a request that was read, and goes on as it came.
async fn unchanged(
    shared: &Arc<Shared>,
    head: request::Parts,
    body: Bytes,
    from: &Connection,
) -> ClientAnswer {
    match send(shared, Request::from_parts(head, Either::Right(Full::from(body))), from).await {
        Ok(response) => response.map(Either::Left),
        Err(answer) => answer,
    }
}

async fn collected(response: Response<Incoming>) -> Result<(response::Parts, Bytes), ClientAnswer> {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Ok((head, body.to_bytes())),
        Err(error) => {
            Err(answer::error(StatusCode::BAD_GATEWAY, &format!("Docker's answer broke off: {error}")))
        }
    }
}

fn with_body(mut head: response::Parts, body: Bytes) -> ClientAnswer {
    forward::describe_body(&mut head.headers, &body);
    Response::from_parts(head, Either::Right(Full::from(body)))
}
