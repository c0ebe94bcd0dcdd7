//! Answers of the proxy's own, in the form of Docker's.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, CONTENT_TYPE};
use hyper::{Response, StatusCode};

use crate::error::Failure;

/// Docker's answer as it comes, or a whole one of ours.
pub(super) type AnswerBody = Either<Incoming, Full<Bytes>>;
pub(super) type ClientAnswer = Response<AnswerBody>;

/// An error in Docker's form, which every client shows as `Error response from daemon: …`.
pub(super) fn error(status: StatusCode, message: &str) -> ClientAnswer {
    let mut answer = Response::new(Either::Right(Full::from(json(message))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The refusal of a request that Docker never sees.
pub(super) fn refused(status: StatusCode, failure: &Failure) -> ClientAnswer {
    error(status, &format!("{}: {}", failure.code, failure.message))
}

/// What a client reads when there is no Docker. The words are those of the docker command, which most users know.
pub(super) fn docker_away(address: &str) -> ClientAnswer {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        &format!("Cannot connect to the Docker daemon at {address}. Is the docker daemon running?"),
    )
}

/// The same as bytes, for a connection that no request was read from.
pub(super) fn raw(status: StatusCode, message: &str) -> Vec<u8> {
    let body = json(message);
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn json(message: &str) -> String {
    format!("{}\n", serde_json::json!({ "message": message }))
}
