//! What a word of the command line means: a task, an app, an address, a host.

use std::net::IpAddr;

use super::journey::{FlowEnd, FlowEndKind};
use super::world::{PolicyEndpoint, PolicyWorld};
use crate::names;

/// A name closer than this to what was typed is suggested; 1 is equal.
const NEAR: f64 = 0.8;
/// So many candidates are named.
const MOST: usize = 5;

/// The ends that a word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeantEnds {
    /// Several where an app or an address has several endpoints.
    pub ends: Vec<FlowEnd>,
    /// `the app /web`, `the address 10.65.0.1`: what has several.
    pub what: String,
}

/// A word that means nothing, or too much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeantError {
    #[error("no task, app or host is called '{word}', and it is not an address{}", did_you_mean(.nearest))]
    Nothing { word: String, nearest: Option<String> },
    #[error("'{word}' fits {} endpoints: {}; type more of it", .endpoints.len(), some_of(.endpoints))]
    Ambiguous { word: String, endpoints: Vec<String> },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|nearest| format!("; did you mean '{nearest}'?")).unwrap_or_default()
}

fn some_of(names: &[String]) -> String {
    let first = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match names.len() > MOST {
        true => format!("{first} and {} more", names.len() - MOST),
        false => first,
    }
}

impl PolicyWorld {
    /// The ends that a word means. The whole of a name comes before the beginning of another, a task before its app, and
    /// both before a host.
    pub fn meant(&self, word: &str) -> Result<MeantEnds, MeantError> {
        let word = word.trim();
        if let Ok(address) = word.parse() {
            return Ok(self.at_address(address));
        }
        let lower = word.to_lowercase();
        let exact = self.those(|own| own.names().any(|name| name == word) || own.container_id == lower);
        if !exact.is_empty() && !word.is_empty() {
            return Ok(MeantEnds { ends: exact, what: format!("the workload {word}") });
        }
        let app = word.trim_matches('/');
        let of_app =
            |own: &PolicyEndpoint| own.app.as_deref().is_some_and(|own| own.trim_matches('/') == app);
        let of_app = self.those(|own| !app.is_empty() && of_app(own));
        if !of_app.is_empty() {
            return Ok(MeantEnds { ends: of_app, what: format!("the app {word}") });
        }
        if self.hosts.contains_key(word) {
            let end = FlowEnd { kind: FlowEndKind::Host(word.to_owned()), address: None };
            return Ok(MeantEnds { ends: vec![end], what: format!("the host {word}") });
        }
        let begins = |own: &PolicyEndpoint| {
            own.names().any(|name| name.starts_with(word)) || own.container_id.starts_with(&lower)
        };
        let found = self.those(|own| !word.is_empty() && begins(own));
        match found.as_slice() {
            [_] => Ok(MeantEnds { ends: found, what: format!("the workload {word}") }),
            [] => Err(MeantError::Nothing { word: word.to_owned(), nearest: self.nearest(word) }),
            several => {
                let endpoints = several.iter().map(|end| self.name_of(end)).collect();
                Err(MeantError::Ambiguous { word: word.to_owned(), endpoints })
            }
        }
    }

    fn those(&self, is_meant: impl Fn(&PolicyEndpoint) -> bool) -> Vec<FlowEnd> {
        let found = self.workloads.iter().enumerate().filter(|(_, own)| is_meant(own));
        found.map(|(index, _)| FlowEnd { kind: FlowEndKind::Workload(index), address: None }).collect()
    }

    fn at_address(&self, address: IpAddr) -> MeantEnds {
        let mut ends = self.those(|own| own.addresses.contains(&address));
        if ends.is_empty() {
            let kind =
                self.host_at(address).map_or(FlowEndKind::Outside, |host| FlowEndKind::Host(host.to_owned()));
            ends.push(FlowEnd { kind, address: None });
        }
        ends.iter_mut().for_each(|end| end.address = Some(address));
        MeantEnds { ends, what: format!("the address {address}") }
    }

    fn nearest(&self, word: &str) -> Option<String> {
        let workloads = self.workloads.iter();
        let own = workloads.flat_map(|own| own.names().chain(own.app.as_deref()));
        names::nearest(word, own.chain(self.hosts.keys().map(String::as_str)), NEAR).map(str::to_owned)
    }
}
