//! What becomes of each request: the calls that have a meaning of their own here, and all the others.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::Request;

use super::answer::ClientAnswer;
use super::forward::{self, Connection};
use super::route::DockerRoute;
use super::Shared;

/// Answers one request. The future may be dropped at any time: the client has gone.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
) -> ClientAnswer {
    match DockerRoute::of(request.method(), request.uri()) {
        DockerRoute::Stream => forward::stream(shared, request, from).await,
        _ => forward::pass(shared, request, from).await,
    }
}
