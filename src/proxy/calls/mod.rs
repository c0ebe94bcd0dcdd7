//! What becomes of each request: the calls that have a meaning of their own here, and all the others.

mod bound;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::Request;

use super::answer::ClientAnswer;
use super::create;
use super::forward::{self, Connection};
use super::route::DockerRoute;
use super::Shared;
use bound::CallKind;

/// Answers one request. The future may be dropped at any time: the client has gone.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
) -> ClientAnswer {
    let uri = request.uri().clone();
    match DockerRoute::of(request.method(), &uri) {
        DockerRoute::Stream => forward::stream(shared, request, from).await,
        DockerRoute::Create { name } => {
            // A create that Docker has begun is bound, whether its client waits or not.
            let (shared, from) = (shared.clone(), from.clone());
            let creates = shared.creates.clone();
            let created =
                creates.spawn(async move { bound::create(&shared, request, name.as_deref(), &from).await });
            match created.await {
                Ok(answer) => answer,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        DockerRoute::Start { container } => {
            bound::told(shared, request, &container, CallKind::Start, from).await
        }
        DockerRoute::Restart { container } => {
            bound::told(shared, request, &container, CallKind::Restart, from).await
        }
        DockerRoute::Stop { container } | DockerRoute::Kill { container, signalled: false } => {
            bound::told(shared, request, &container, CallKind::Stop, from).await
        }
        DockerRoute::Kill { container, signalled: true } => {
            bound::told(shared, request, &container, CallKind::Signal, from).await
        }
        DockerRoute::Remove { container, force } => {
            bound::told(shared, request, &container, CallKind::Remove { force }, from).await
        }
        DockerRoute::Inspect { .. } | DockerRoute::List => bound::shown(shared, request, from).await,
        DockerRoute::Connect { .. } => bound::network(shared, request, from).await,
        DockerRoute::Checkpoint { container } => {
            bound::refused(shared, request, &container, create::checkpoint_refused(), from).await
        }
        DockerRoute::CreateService | DockerRoute::UpdateService => {
            bound::service(shared, request, from).await
        }
        DockerRoute::Pass => forward::pass(shared, request, from).await,
    }
}
