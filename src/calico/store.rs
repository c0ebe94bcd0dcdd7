//! etcd, thinly: one connection, reads as one transaction, writes as one guarded transaction.
//!
//! With its part `health`, the only file that uses etcd-client; all endpoints are tried at the same time, the time limits are in
//! [`crate::limits`]. A read moves on to the next endpoint when one fails; a write is sent once,
//! because its outcome is unknown when no answer comes ([`StoreError::Lost`]).
//!
//! A login's token may be refused at any time: a simple one after 300 s or a restart of etcd, a JWT after any change
//! of users or roles. Such a call was not carried out: it logs in once more, with the password as it is by then, and
//! is sent again.

mod health;

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, Identity, TlsOptions, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use tokio::time::timeout;

use super::members::{self, Member};
use super::txn::{Change, Guard, Range, ReadAnswer, ReadKey, Written};
use crate::config::Etcd;
use crate::dial::probe;
use crate::limits::{ETCD_CONNECT, ETCD_REQUEST, ETCD_TLS_PROBE};
use crate::tls::{self, TlsFault};

pub use health::{History, StoreHealth};

/// Bytes; a host's twenty blocks of the largest size that Calico allows come to some 16 MB.
const ANSWER_LIMIT: usize = 64 << 20;
/// Keys a page of [`Store::scan`]: some 3 MB of endpoints.
const PAGE: i64 = 2000;
/// How etcd refuses a token that it does not hold (any more), and a JWT from before a change of users or roles.
const TOKEN_REFUSED: [&str; 2] =
    ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"];
/// How our own side, and a gRPC proxy, refuse an answer that exceeds their limit.
const TOO_LONG: [&str; 2] = ["message length too large", "message larger than max"];

/// What kept etcd from answering.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot read {path}")]
    File {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Endpoint(String),
    #[error("none of the endpoints accepts a connection ({0})")]
    Connect(String),
    /// Reached, but no TLS with it.
    #[error("{}", no_tls(endpoint, source))]
    Tls {
        endpoint: String,
        #[source]
        source: std::io::Error,
    },
    /// Certain: nothing was written.
    #[error("etcd refused the request: {0}")]
    Refused(String),
    /// Certain as well, but a new login may help.
    #[error("etcd refused the token of the login: {0}")]
    Token(String),
    /// For reads only: fewer keys at once may fit.
    #[error("the answer is too long: {0}")]
    TooLong(String),
    #[error("etcd failed to answer: {0}")]
    Failed(String),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// A write was sent; whether it was carried out is unknown.
    #[error("the connection was lost before the answer")]
    Lost(#[source] Box<StoreError>),
}

impl StoreError {
    /// Would another endpoint, or the same one later, give a better answer?
    fn is_worth_another_endpoint(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Timeout(_))
    }

    /// What to look at, for the operator.
    pub fn advice(&self) -> &'static str {
        let fault = match self {
            Self::File { .. } => Some(TlsFault::Files),
            Self::Tls { source, .. } => tls::fault(source),
            Self::Lost(source) => return source.advice(),
            _ => None,
        };
        match fault {
            None => "check that etcd answers there, and [etcd] in config.toml",
            Some(TlsFault::Peer) => {
                "check cert_file and key_file of [etcd] in config.toml, and the CA of etcd's --trusted-ca-file"
            }
            Some(TlsFault::Here) => {
                "check endpoints and ca_file of [etcd] in config.toml, and the names in etcd's certificate"
            }
            Some(TlsFault::Files) => "check the files that [etcd] in config.toml names",
            Some(TlsFault::Plain) => "check endpoints of [etcd] in config.toml: they begin with https://",
        }
    }
}

fn no_tls(endpoint: &str, source: &std::io::Error) -> String {
    match tls::fault(source) {
        Some(TlsFault::Peer) => format!("etcd at {endpoint} refuses the TLS connection"),
        Some(TlsFault::Files) => format!("the TLS connection to etcd at {endpoint} cannot be prepared"),
        Some(TlsFault::Plain) => format!("etcd at {endpoint} expects TLS, which is not configured"),
        Some(TlsFault::Here) | None => format!("the TLS connection to etcd at {endpoint} fails on this side"),
    }
}

/// A connection to one member of the cluster, and the way to the others.
pub(super) struct Store {
    targets: Vec<Member>,
    current: usize,
    /// The address of the current target.
    address: SocketAddr,
    client: Client,
    config: Etcd,
    options: Options,
    requests: u64,
}

/// Credentials, read anew for every connection so that they can be rotated.
struct Options {
    user: Option<(String, String)>,
    /// What is used with a member behind TLS.
    files: tls::Files,
}

impl Store {
    pub(super) async fn connect(config: &Etcd) -> Result<Self, StoreError> {
        let options = Options::read(config)?;
        let mut targets = Vec::new();
        let mut problems = Vec::new();
        for endpoint in &config.endpoints {
            match timeout(ETCD_CONNECT, Member::resolve(endpoint)).await {
                Ok(Ok(target)) => targets.push(target),
                Ok(Err(problem)) => problems.push(problem),
                Err(_) => problems.push(format!("the host name in {endpoint} was not resolved in time")),
            }
        }
        let (current, address) =
            members::first_open(&targets, problems).await.map_err(StoreError::Connect)?;
        let client = match options.client(&targets[current], address).await {
            Ok(client) => client,
            Err(error) => return Err(look_closer(error, config, &targets[current], address).await),
        };
        Ok(Self { targets, current, address, client, config: config.clone(), options, requests: 0 })
    }

    /// How many requests were sent over this store; etcd's own work for a login is not counted.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// All ranges at one instant of the store. Tries every endpoint once.
    pub(super) async fn read(&mut self, ranges: &[Range]) -> Result<ReadAnswer, StoreError> {
        self.get(gets(ranges)).await
    }

    /// Everything below a prefix at one instant.
    pub(super) async fn scan(&mut self, prefix: &str) -> Result<Vec<ReadKey>, StoreError> {
        let mut found: Vec<ReadKey> = Vec::new();
        self.scan_each(prefix, |entry| found.push(entry)).await?;
        Ok(found)
    }

    /// The same entry by entry, in the order of the keys. It is read in pages: each answer has to come within the time
    /// limit, and no more than a page is in memory.
    pub(super) async fn scan_each(
        &mut self,
        prefix: &str,
        mut visit: impl FnMut(ReadKey),
    ) -> Result<(), StoreError> {
        let (mut from, end) = (prefix.as_bytes().to_vec(), behind(prefix));
        let (mut revision, mut limit) = (0, PAGE);
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(limit).with_revision(revision);
            let mut answer = match self.get(vec![TxnOp::get(from.clone(), Some(options))]).await {
                // Blocks of a large size make an answer too long: up to a megabyte each.
                Err(StoreError::TooLong(_)) if limit > 1 => {
                    limit = (limit / 16).max(1);
                    continue;
                }
                answer => answer?,
            };
            if revision == 0 {
                revision = answer.revision;
            }
            let page = answer.ranges.pop().unwrap_or_default();
            let is_last = (page.len() as i64) < limit;
            if let Some(last) = page.last() {
                from = [last.key.as_bytes(), &[0]].concat();
            }
            let is_empty = page.is_empty();
            page.into_iter().for_each(&mut visit);
            if is_last || is_empty {
                return Ok(());
            }
        }
    }

    /// The first key from a place on, below a prefix.
    pub(super) async fn first_key(&mut self, from: &str, prefix: &str) -> Result<Option<String>, StoreError> {
        let options = GetOptions::new().with_range(behind(prefix)).with_limit(1).with_keys_only();
        let mut answer = self.get(vec![TxnOp::get(from, Some(options))]).await?;
        let found = answer.ranges.pop().unwrap_or_default().pop();
        Ok(found.map(|entry| entry.key))
    }

    async fn get(&mut self, operations: Vec<TxnOp>) -> Result<ReadAnswer, StoreError> {
        let mut tries = self.targets.len();
        loop {
            let txn = Txn::new().and_then(operations.clone());
            match self.send(txn).await {
                Ok(response) => return Ok(answer(response)),
                Err(error) if tries > 1 && error.is_worth_another_endpoint() => {
                    tries -= 1;
                    self.move_on().await?;
                }
                Err(error) => {
                    return Err(
                        look_closer(error, &self.config, &self.targets[self.current], self.address).await
                    )
                }
            }
        }
    }

    /// Writes everything or, when a guard does not hold, nothing.
    pub(super) async fn write(
        &mut self,
        guards: &[Guard],
        changes: &[Change],
        otherwise: &[Range],
    ) -> Result<Written, StoreError> {
        let compares: Vec<Compare> = guards.iter().map(compare).collect();
        let operations: Vec<TxnOp> = changes.iter().map(operation).collect();
        let txn = Txn::new().when(compares).and_then(operations).or_else(gets(otherwise));
        match self.send(txn).await {
            Ok(response) if response.succeeded() => Ok(Written::Done),
            Ok(response) => Ok(Written::Conflict(answer(response))),
            Err(error @ (StoreError::Refused(_) | StoreError::Token(_))) => Err(error),
            Err(error) => Err(StoreError::Lost(Box::new(error))),
        }
    }

    /// Goes to another endpoint where there is one, else connects anew to the same.
    pub(super) async fn move_on(&mut self) -> Result<(), StoreError> {
        // The one that failed goes to the end, and is asked again only when no other is there.
        let last = self.targets.len() - 1;
        self.targets[self.current..].rotate_left(1);
        let open = match members::first_open(&self.targets[..last], Vec::new()).await {
            Err(_) => members::first_open(&self.targets[last..], Vec::new())
                .await
                .map(|(_, address)| (last, address)),
            found => found,
        };
        let (current, address) = open.map_err(StoreError::Connect)?;
        self.options = Options::read(&self.config)?;
        self.client = match self.options.client(&self.targets[current], address).await {
            Ok(client) => client,
            Err(error) => return Err(look_closer(error, &self.config, &self.targets[current], address).await),
        };
        (self.current, self.address) = (current, address);
        Ok(())
    }

    async fn send(&mut self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let again = self.options.user.is_some().then(|| txn.clone());
        match (self.send_once(txn).await, again) {
            (Err(StoreError::Token(why)), Some(txn)) => {
                tracing::debug!("logging in to etcd once more: {why}");
                self.log_in().await?;
                self.send_once(txn).await
            }
            (answer, _) => answer,
        }
    }

    /// Over the same connection, with the password as it is now.
    async fn log_in(&mut self) -> Result<(), StoreError> {
        self.options = Options::read(&self.config)?;
        let login = self.client.update_user(self.options.user.clone());
        match timeout(ETCD_REQUEST, login).await {
            Ok(done) => done.map_err(|error| StoreError::from(&error)),
            Err(_) => Err(StoreError::Timeout(ETCD_REQUEST)),
        }
    }

    async fn send_once(&mut self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.requests += 1;
        let mut kv = self.client.kv_client().max_decoding_message_size(ANSWER_LIMIT);
        match timeout(ETCD_REQUEST, Box::pin(kv.txn(txn))).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(StoreError::from(&error)),
            Err(_) => Err(StoreError::Timeout(ETCD_REQUEST)),
        }
    }
}

impl Options {
    fn read(config: &Etcd) -> Result<Self, StoreError> {
        let file = |path: &std::path::Path| {
            std::fs::read(path).map_err(|source| StoreError::File { path: path.into(), source })
        };
        let password = match &config.password_file {
            Some(path) => {
                Some(String::from_utf8_lossy(&file(path)?).trim_end_matches(['\r', '\n']).to_owned())
            }
            None => config.password.clone(),
        };
        let user = config.username.clone().zip(password);
        Ok(Self { user, files: files(config) })
    }

    /// A client for one address. The certificate is checked against the configured host name.
    async fn client(&self, target: &Member, address: SocketAddr) -> Result<Client, StoreError> {
        let mut options = ConnectOptions::new().with_connect_timeout(ETCD_CONNECT).with_timeout(ETCD_REQUEST);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password);
        }
        if target.https {
            let material = self.files.read().map_err(|error| StoreError::Tls {
                endpoint: target.endpoint.clone(),
                source: std::io::Error::other(error),
            })?;
            // The client takes PEM text and builds rustls's configuration itself.
            let mut tls = TlsOptions::new()
                .domain_name(&target.host)
                .ca_certificate(Certificate::from_pem(&material.ca));
            if let Some(own) = &material.identity {
                tls = tls.identity(Identity::from_pem(&own.certificate, &own.key));
            }
            options = options.with_tls(tls);
        }
        let scheme = if target.https { "https" } else { "http" };
        let connect = Box::pin(Client::connect([format!("{scheme}://{address}")], Some(options)));
        match timeout(ETCD_REQUEST, connect).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(StoreError::from(&error)),
            Err(_) => Err(StoreError::Timeout(ETCD_REQUEST)),
        }
    }
}

fn files(config: &Etcd) -> tls::Files {
    tls::Files { ca: config.ca_file.clone(), cert: config.cert_file.clone(), key: config.key_file.clone() }
}

/// The same error, or that TLS is the reason. The client's errors have lost that.
async fn look_closer(error: StoreError, config: &Etcd, target: &Member, address: SocketAddr) -> StoreError {
    // A member that hangs is not asked once more.
    if !matches!(error, StoreError::Failed(_)) {
        return error;
    }
    let files = target.https.then(|| files(config));
    match timeout(ETCD_TLS_PROBE, probe(address, &target.host, files.as_ref())).await {
        Ok(Some(source)) => StoreError::Tls { endpoint: target.endpoint.clone(), source },
        Ok(None) | Err(_) => error,
    }
}

// The client's own text is a dump of its internals; the first and the innermost cause are what helps.
impl From<&Error> for StoreError {
    fn from(error: &Error) -> Self {
        let Error::GRpcStatus(status) = error else { return Self::Failed(error.to_string()) };
        let mut told = status.message().to_owned();
        let mut innermost = status.source();
        while let Some(deeper) = innermost.and_then(StdError::source) {
            innermost = Some(deeper);
        }
        if let Some(cause) = innermost.map(ToString::to_string).filter(|cause| !told.contains(cause)) {
            told = format!("{told}: {cause}");
        }
        if TOKEN_REFUSED.iter().any(|words| told.contains(words)) {
            return Self::Token(told);
        }
        if TOO_LONG.iter().any(|words| told.contains(words)) {
            return Self::TooLong(told);
        }
        if is_refusal(error) {
            return Self::Refused(told);
        }
        Self::Failed(told)
    }
}

/// Answers after which it is certain that nothing was written.
fn is_refusal(error: &Error) -> bool {
    // The codes of gRPC: invalid argument, permission denied, failed precondition, out of range,
    // unimplemented, unauthenticated.
    matches!(error, Error::GRpcStatus(status) if matches!(status.code() as i32, 3 | 7 | 9 | 11 | 12 | 16))
}

fn gets(ranges: &[Range]) -> Vec<TxnOp> {
    let get = |range: &Range| match range {
        Range::Key(key) => TxnOp::get(key.as_str(), None),
        Range::Prefix(prefix) => TxnOp::get(prefix.as_str(), Some(GetOptions::new().with_prefix())),
        Range::Names(prefix) => {
            TxnOp::get(prefix.as_str(), Some(GetOptions::new().with_prefix().with_keys_only()))
        }
        Range::Count(prefix) => {
            TxnOp::get(prefix.as_str(), Some(GetOptions::new().with_prefix().with_count_only()))
        }
    };
    ranges.iter().map(get).collect()
}

/// The first key behind all that begin with the prefix. Ours end with a character that has a successor.
fn behind(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn compare(guard: &Guard) -> Compare {
    match guard {
        Guard::Revision { key, revision: 0 } => Compare::version(key.as_str(), CompareOp::Equal, 0),
        Guard::Revision { key, revision } => Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision),
        Guard::NoneNewer { prefix, revision } => {
            Compare::mod_revision(prefix.as_str(), CompareOp::Less, revision + 1).with_prefix()
        }
        Guard::NoneCreated { prefix, revision } => {
            Compare::create_revision(prefix.as_str(), CompareOp::Less, revision + 1).with_prefix()
        }
    }
}

fn operation(change: &Change) -> TxnOp {
    match change {
        Change::Put { key, value } => TxnOp::put(key.as_str(), value.clone(), None),
        Change::Delete { key } => TxnOp::delete(key.as_str(), None),
    }
}

fn answer(response: TxnResponse) -> ReadAnswer {
    let revision = response.header().map_or(0, |header| header.revision());
    let ranges = response.op_responses().into_iter().map(|operation| match operation {
        TxnOpResponse::Get(mut get) => (get.take_kvs().into_iter().map(entry).collect(), get.count()),
        _ => (Vec::new(), 0),
    });
    let (ranges, counts) = ranges.unzip();
    ReadAnswer { revision, ranges, counts }
}

fn entry(found: etcd_client::KeyValue) -> ReadKey {
    let revision = found.mod_revision();
    let (key, value) = found.into_key_value();
    ReadKey { key: String::from_utf8_lossy(&key).into_owned(), value, revision }
}
