//! The task's Consul entries. They are registered beside its life and never delay it.
//!
//! A Consul that is absent or down neither fails a task nor delays one. What has not reached Consul is retried until it
//! does or the task ends; the log holds the first error and the success. The entries of a task with a health check
//! follow the check. Of the changes while Consul was away only the newest state is sent.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::consul::{Client, ConsulError, Health, Service};
use crate::error::chain;
use crate::logging;
use crate::names::ContainerId;

use crate::task::record::published::Told;
use crate::task::request::calico::shown;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a task has in Consul.
pub struct Services {
    /// `<app>-direct` at the Calico addresses.
    pub direct: Vec<Service>,
    /// `<app>` at the host's address.
    pub host: Vec<Service>,
}

impl Services {
    pub fn ids(&self) -> Vec<String> {
        self.direct.iter().chain(&self.host).map(|service| service.id.clone()).collect()
    }
}

/// Registers in the background, and keeps the entries of a task with a health check up to date.
pub struct Registrar {
    stop: CancellationToken,
    health: watch::Sender<Option<Health>>,
    work: JoinHandle<bool>,
    told: Told,
}

impl Registrar {
    /// `checked`: the task has a health check, and counts as ill until its first success.
    pub fn start(
        config: &Config,
        container: &ContainerId,
        services: Services,
        checked: bool,
    ) -> Option<Self> {
        if !config.consul.enabled {
            return None;
        }
        let unknown = Health { healthy: false, why: "no health check has succeeded yet".into() };
        let (health, newest) = watch::channel(checked.then_some(unknown));
        let stop = CancellationToken::new();
        let told = Told::of(config, container);
        let work = logging::spawn(keep(config.clone(), services, newest, stop.clone(), told.clone()));
        Some(Self { stop, health, work, told })
    }

    /// The health that the task's entries are to show from now on.
    pub fn tell(&self, healthy: bool, why: &str) {
        self.health.send_replace(Some(Health { healthy, why: why.to_owned() }));
    }

    /// Ends the work; a registration under way is waited for, so that it cannot overtake the removal, but not longer
    /// than `limit`.
    pub async fn stop(mut self, limit: Duration) -> Registration {
        self.stop.cancel();
        let stopped = match timeout(limit, &mut self.work).await {
            Ok(Ok(false)) => Registration::None,
            Ok(Ok(true) | Err(_)) => Registration::Possible,
            Err(_) => {
                self.work.abort();
                // Cancelled at its request, at once.
                let _ = self.work.await;
                Registration::Unheard
            }
        };
        // Before anything is removed: a cleaner must not give it back afterwards.
        self.told.forget();
        stopped
    }
}

/// What Consul may hold of a task whose registration has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    None,
    Possible,
    /// A request was not answered: it may be carried out at any later time.
    Unheard,
}

/// One entry on its way into Consul.
struct Entry {
    service: Service,
    /// Not registered when another program, such as mesos-consul, has registered the name already.
    yields: bool,
    state: State,
    /// An error stands in the log; the next one says nothing new.
    complained: bool,
    /// The first of its name, which finds out whether another app has the name too.
    looks: bool,
}

enum State {
    Missing,
    /// With this health.
    Told(Option<Health>),
    LeftOut,
}

/// True when anything may have been registered.
async fn keep(
    config: Config,
    services: Services,
    mut newest: watch::Receiver<Option<Health>>,
    stop: CancellationToken,
    told: Told,
) -> bool {
    let Services { direct, host } = services;
    let direct = direct.into_iter().map(|service| (service, false));
    let mut entries: Vec<Entry> = Vec::new();
    for (service, yields) in direct.chain(host.into_iter().map(|service| (service, true))) {
        let looks = entries.iter().all(|entry| entry.service.name != service.name);
        entries.push(Entry { service, yields, state: State::Missing, complained: false, looks });
    }
    let mut registered = false;
    let mut pause = FIRST_PAUSE;
    loop {
        let health = newest.borrow_and_update().clone();
        let mut done = true;
        let before = known(&entries);
        let mut new: Vec<&Service> = Vec::new();
        for entry in &mut entries {
            if stop.is_cancelled() {
                return registered;
            }
            let before = matches!(entry.state, State::Told(_));
            // Made anew each time: most of its life the task has nothing to report.
            match Client::new(&config) {
                Ok(client) => {
                    done &= entry.catch_up(&client, &health, &mut registered, &stop).await;
                }
                Err(error) => done = entry.complain(&error),
            }
            if !before && matches!(entry.state, State::Told(_)) {
                new.push(&entry.service);
            }
        }
        if !new.is_empty() {
            tracing::info!("Consul: {}", shown_together(&new));
        }
        let now = known(&entries);
        if before != now {
            told.note(&now);
        }
        let wait = async {
            match (done, &health) {
                // Nothing will ever change.
                (true, None) => return true,
                (true, Some(_)) => pause = FIRST_PAUSE,
                (false, _) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    return false;
                }
            }
            newest.changed().await.is_err()
        };
        tokio::select! {
            over = wait => if over { return registered },
            () = stop.cancelled() => return registered,
        }
    }
}

/// `web-direct 192.168.9.129:80, :443 (https); web 10.0.0.17:31000`
fn shown_together(services: &[&Service]) -> String {
    let mut text = String::new();
    let mut last: Option<(&str, IpAddr)> = None;
    for service in services {
        let port = service.port.map_or(String::new(), |port| format!(":{port}"));
        let at = (service.name.as_str(), service.address);
        text.push_str(&match last {
            Some(last) if last == at => format!(", {port}"),
            Some((name, _)) if name == at.0 => format!(", {}{port}", at.1),
            Some(_) => format!("; {} {}{port}", at.0, at.1),
            None => format!("{} {}{port}", at.0, at.1),
        });
        last = Some(at);
    }
    text
}

/// The entries that Consul holds, with the health that it received last.
fn known(entries: &[Entry]) -> Vec<Service> {
    let known = entries.iter().filter_map(|entry| match &entry.state {
        State::Told(health) => Some(Service { health: health.clone(), ..entry.service.clone() }),
        State::Missing | State::LeftOut => None,
    });
    known.collect()
}

impl Entry {
    /// True when Consul holds the newest state of all entries.
    async fn catch_up(
        &mut self,
        client: &Client,
        health: &Option<Health>,
        registered: &mut bool,
        stop: &CancellationToken,
    ) -> bool {
        let result = match (&self.state, health) {
            (State::LeftOut, _) => return true,
            (State::Told(told), health) if told == health => return true,
            (State::Told(_), Some(newest)) => self.report(client, newest).await,
            _ => self.register(client, health, stop).await,
        };
        match result {
            Ok(state) => {
                *registered |= matches!(state, State::Told(_));
                self.complained = false;
                self.state = state;
                !matches!(self.state, State::Missing)
            }
            Err(error) => {
                // An answer that never came may have been a success.
                *registered |= !error.never_arrived();
                self.complain(&error)
            }
        }
    }

    /// False, for not being done.
    fn complain(&mut self, error: &ConsulError) -> bool {
        if !self.complained {
            tracing::warn!("cannot register {}: {}; this is retried", self.service.name, chain(error));
        }
        self.complained = true;
        false
    }

    async fn register(
        &mut self,
        client: &Client,
        health: &Option<Health>,
        stop: &CancellationToken,
    ) -> Result<State, ConsulError> {
        if self.yields {
            let name = &self.service.name;
            // Only a question: a task that ends does not wait for its answer.
            let Some(foreign) = stop.run_until_cancelled(client.has_foreign_instance(name)).await else {
                return Ok(State::Missing);
            };
            if foreign? {
                tracing::info!("{name} is in Consul already, registered by another program");
                return Ok(State::LeftOut);
            }
        }
        if self.looks && stop.run_until_cancelled(self.look(client)).await.is_none() {
            return Ok(State::Missing);
        }
        self.service.health.clone_from(health);
        client.register(&self.service).await?;
        Ok(State::Told(health.clone()))
    }

    /// Two apps whose ids fold into one name are found under it together, and each may answer for the other.
    async fn look(&mut self, client: &Client) {
        let name = &self.service.name;
        match client.other_app(&self.service).await {
            Ok(Some(other)) => tracing::warn!(
                "{name} in Consul is also the name of the app {}: a lookup may return either; give one of them another id",
                shown(&other)
            ),
            Ok(None) => {}
            // The registration that follows has its own words for a Consul that is away.
            Err(error) => return tracing::debug!("{}", chain(&error)),
        }
        self.looks = false;
    }

    /// A Consul that has lost the entry gets it anew.
    async fn report(&self, client: &Client, health: &Health) -> Result<State, ConsulError> {
        match client.report(&self.service.id, health).await? {
            true => Ok(State::Told(Some(health.clone()))),
            false => Ok(State::Missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    fn service(name: &str) -> Service {
        let text = format!(r#"{{"ID":"calico-mesos-1","Service":"{name}","Address":"10.65.0.1"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    /// The end of a registration with a Consul that answers `answered` questions and nothing else: what it may hold,
    /// and how long the end took.
    async fn stopped(services: Services, answered: usize) -> (Registration, Duration) {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.consul.enabled = true;
        config.consul.address = format!("http://{}", silent.local_addr().unwrap());
        config.paths.run = folder.path().into();
        let registrar = Registrar::start(&config, &ContainerId::random(), services, false).unwrap();
        for _ in 0..answered {
            let (mut question, _) = silent.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(question.read(&mut request).await.unwrap() > 0 && request.starts_with(b"GET "));
            let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]";
            question.write_all(empty).await.unwrap();
        }
        let _connection = silent.accept().await.unwrap();
        let begun = Instant::now();
        let registration = registrar.stop(Duration::from_secs(1)).await;
        (registration, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_without_an_answer_is_waited_for_within_the_limit() {
        let services = Services { direct: vec![service("web-direct")], host: Vec::new() };
        // Whether another app has the name.
        let (registration, took) = stopped(services, 1).await;
        assert_eq!((registration, took.as_secs()), (Registration::Unheard, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_without_an_answer_is_not_waited_for() {
        for (direct, host) in [(None, Some("web")), (Some("web-direct"), None)] {
            let [direct, host] = [direct, host].map(|name| name.map(service).into_iter().collect());
            let (registration, took) = stopped(Services { direct, host }, 0).await;
            assert_eq!(registration, Registration::None);
            assert!(took < Duration::from_millis(100), "{took:?}");
        }
    }
}
