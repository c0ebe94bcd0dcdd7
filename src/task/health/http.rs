//! A GET as `curl -L -k -g` makes it, which is what the stock executor runs.
//!
//! | curl | here |
//! | --- | --- |
//! | `-L` | redirects are followed, anywhere that can be reached from the task's namespace, name servers too; fifty at most |
//! | `-k` | no certificate is refused; TLS 1.2 and 1.3 |
//! | `-g` | the path is taken as it stands |
//! | `-o /dev/null` | the body is read, up to a bound, and thrown away |
//! | HTTP/2 | not spoken: a server that speaks nothing else fails its check |

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use hyper::Request;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use url::{Host, Position, Url};

use super::probe::{first_open, ProbeError};
use super::Scheme;
use crate::dial::{self, DialError, Stream};
use crate::net::{self, Namespace};
use crate::task::request::calico::shown;
use crate::tls;

/// curl's own bound.
const REDIRECTS: usize = 50;
/// What is read of an answer's body; one that is longer is as good as one that ends.
const MOST: usize = 1 << 20;
const AGENT: &str = concat!("calico-mesos/", env!("CARGO_PKG_VERSION"), " (health check)");

/// Healthy is what answers 200 to 399 in the end.
pub(super) async fn get(
    namespace: &Arc<Namespace>,
    scheme: Scheme,
    candidates: &[SocketAddr],
    path: &str,
) -> Result<(), ProbeError> {
    let (mut stream, at) = first_open(namespace, candidates).await?;
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let start = format!("{scheme}://{at}{path}");
    let mut url =
        Url::parse(&start).map_err(|_| ProbeError::Location { url: shown(&start), location: shown(path) })?;
    for _ in 0..=REDIRECTS {
        let answer = ask(stream, &url).await?;
        let Some(location) = answer.location else {
            return match answer.status {
                200..=399 => Ok(()),
                status => Err(ProbeError::Status { url: shown(url.as_str()), status }),
            };
        };
        url = follow(&url, &location)?;
        (stream, _) = first_open(namespace, &addresses(namespace, &url).await?).await?;
    }
    Err(ProbeError::Redirects { url: shown(&start) })
}

/// Where a redirect leads; not to other protocols than those of the web.
fn follow(url: &Url, location: &str) -> Result<Url, ProbeError> {
    let joined = url.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    joined.ok_or_else(|| ProbeError::Location { url: shown(url.as_str()), location: shown(location) })
}

async fn addresses(namespace: &Arc<Namespace>, url: &Url) -> Result<Vec<SocketAddr>, ProbeError> {
    let port = url.port_or_known_default().unwrap_or_default();
    // A web address always has a host; an empty name is one that is not found.
    let found = net::lookup(namespace, url.host_str().unwrap_or_default()).await?;
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

struct Answer {
    status: u16,
    /// Where a redirect points to.
    location: Option<String>,
}

async fn ask(stream: TcpStream, url: &Url) -> Result<Answer, ProbeError> {
    if url.scheme() == "http" {
        return exchange(Box::pin(stream), url).await;
    }
    let name = match url.host() {
        Some(Host::Ipv4(address)) => ServerName::from(std::net::IpAddr::from(address)),
        Some(Host::Ipv6(address)) => ServerName::from(std::net::IpAddr::from(address)),
        domain => ServerName::try_from(domain.map(|domain| domain.to_string()).unwrap_or_default())
            .map_err(|error| failed(url)(DialError::Tls(io::Error::other(error))))?,
    };
    // Made anew each time: an executor waits nearly all its life, and so would this.
    let config = Arc::new(tls::trust_everybody()?);
    exchange(dial::secure(stream, config, name, None).await.map_err(failed(url))?, url).await
}

/// One request on a connection of its own, which ends with this future.
async fn exchange(stream: Stream, url: &Url) -> Result<Answer, ProbeError> {
    let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .body(Empty::<Bytes>::new())
        .map_err(|source| failed(url)(DialError::Form(source)))?;
    let reply = dial::exchange(stream, request).await.map_err(failed(url))?;
    let status = reply.status();
    let location = reply.headers().get(LOCATION).filter(|_| status.is_redirection());
    let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if location.is_none() {
        discard(reply.into_body()).await.map_err(|source| failed(url)(DialError::Broken(source)))?;
    }
    Ok(Answer { status: status.as_u16(), location })
}

fn failed(url: &Url) -> impl Fn(DialError) -> ProbeError + '_ {
    |source| ProbeError::Exchange { url: shown(url.as_str()), source }
}

async fn discard(mut body: hyper::body::Incoming) -> Result<(), hyper::Error> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame?.data_ref().map_or(0, Bytes::len);
        if read > MOST {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follows(from: &str, location: &str) -> Result<String, String> {
        let url = follow(&Url::parse(from).unwrap(), location);
        url.map(|url| url.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn redirects_lead_where_browsers_would_go() {
        let from = "http://127.0.0.1:8080/a/b?c";
        assert_eq!(follows(from, "/x").unwrap(), "http://127.0.0.1:8080/x");
        assert_eq!(follows(from, "x").unwrap(), "http://127.0.0.1:8080/a/x");
        assert_eq!(follows(from, "https://[::1]/x#y").unwrap(), "https://[::1]/x#y");
        assert_eq!(follows(from, "//web.example/").unwrap(), "http://web.example/");
        for bad in ["ftp://127.0.0.1/", "file:///etc/passwd", "http://", "gopher:x"] {
            assert!(follows(from, bad).unwrap_err().contains("cannot be followed"), "{bad}");
        }
        let error = follows(from, "ftp://a\nb").unwrap_err();
        assert!(!error.contains(char::is_control), "{error}");
    }
}
