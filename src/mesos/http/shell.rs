//! Carries out what the state machine decides: the two connections, the timers, the events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::recordio::RecordDecoder;
use super::state::{CallAnswer, HttpEffect, HttpInput, HttpState, News};
use super::transport::{self, AgentTransport, Sender};
use super::Times;
use crate::dial::DialError;
use crate::error::chain;
use crate::mesos::driver::handle::{Drains, DriverCommand};
use crate::mesos::driver::Event;

/// Both sides show each half hour that they live.
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);
/// Two of them missing, and a little for the way.
const SILENCE: Duration = Duration::from_secs(2 * 30 * 60 + 60);
/// An agent that has come back waits two seconds for us: tries must be closer together than one.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);
/// A refusal that comes at once is not answered at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Lives until the last handle is gone.
pub(super) struct HttpShell {
    state: HttpState,
    transport: Arc<AgentTransport>,
    times: Times,
    stream: Option<Subscription>,
    calls: mpsc::UnboundedSender<Bytes>,
    answers: mpsc::UnboundedReceiver<Result<CallAnswer, String>>,
    events: mpsc::UnboundedSender<Event>,
    drains: Drains,
    retry: Option<Pin<Box<Sleep>>>,
    recovery: Option<Pin<Box<Sleep>>>,
    silence: Option<Pin<Box<Sleep>>>,
    heartbeat: Interval,
}

/// The newest SUBSCRIBE and what comes of it.
struct Subscription {
    news: mpsc::UnboundedReceiver<News>,
    _task: AbortOnDropHandle<()>,
}

impl HttpShell {
    /// Subscribes, then runs in the background.
    pub fn start(
        state: HttpState,
        transport: AgentTransport,
        times: Times,
    ) -> (mpsc::UnboundedSender<DriverCommand>, mpsc::UnboundedReceiver<Event>) {
        let transport = Arc::new(transport);
        let (commands, queue) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::unbounded_channel();
        let (calls, bodies) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(call_in_turn(transport.clone(), bodies, answered));
        let mut shell = Self {
            state,
            transport,
            times,
            stream: None,
            calls,
            answers,
            events,
            drains: Drains::default(),
            retry: None,
            recovery: None,
            silence: None,
            heartbeat,
        };
        let subscribe = shell.state.subscribe();
        shell.perform(subscribe);
        tokio::spawn(shell.run(queue));
        (commands, receiver)
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<DriverCommand>) {
        loop {
            let input = tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(DriverCommand::Update(status)) => HttpInput::Update(status),
                    Some(DriverCommand::Drained(answer)) => {
                        self.drains.push(answer);
                        self.drains.answer(self.state.drained());
                        continue;
                    }
                    None => return,
                },
                news = next(&mut self.stream) => {
                    if !matches!(news, News::Opened | News::Record(_)) {
                        self.stream = None;
                        self.silence = None;
                    }
                    HttpInput::Stream(news)
                }
                Some(answer) = self.answers.recv() => HttpInput::Answer(answer),
                () = expired(&mut self.retry) => HttpInput::Retry,
                () = expired(&mut self.recovery) => HttpInput::RecoveryTimeout,
                () = expired(&mut self.silence) => HttpInput::Silence,
                _ = self.heartbeat.tick() => HttpInput::HeartbeatDue,
            };
            let effects = self.state.handle(input);
            self.perform(effects);
            self.drains.answer(self.state.drained());
        }
    }

    fn perform(&mut self, effects: Vec<HttpEffect>) {
        for effect in effects {
            match effect {
                HttpEffect::Subscribe(body) => self.subscribe(body.into()),
                // The receiver lives as long as this sender.
                HttpEffect::Call(body) => drop(self.calls.send(body.into())),
                HttpEffect::RetryLater => {
                    let pause = pause(self.times.backoff_max);
                    self.retry.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                }
                HttpEffect::StartRecovery => self.recovery = Some(sleep(self.times.recovery)),
                HttpEffect::StopRecovery => self.recovery = None,
                HttpEffect::ExpectHeartbeat => self.silence = Some(sleep(SILENCE)),
                // Without a listener nothing can act on an event; the driver ends with its handles.
                HttpEffect::Emit(event) => drop(self.events.send(event)),
            }
        }
    }

    fn subscribe(&mut self, body: Bytes) {
        let (sender, news) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(self.transport.clone(), body, sender));
        self.silence = None;
        self.stream = Some(Subscription { news, _task: AbortOnDropHandle::new(task) });
    }
}

fn sleep(duration: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(duration))
}

/// Any time up to the longest one, so that a host's executors do not come back all at once.
fn pause(longest: Duration) -> Duration {
    let longest = longest.clamp(SHORTEST_PAUSE, LONGEST_PAUSE) - SHORTEST_PAUSE;
    let random = Uuid::new_v4().as_u128() as u32;
    SHORTEST_PAUSE + longest.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

async fn next(stream: &mut Option<Subscription>) -> News {
    match stream {
        Some(subscription) => subscription.news.recv().await.unwrap_or(News::Ended { orderly: false }),
        None => std::future::pending().await,
    }
}

/// Completes once, when the timer has run out.
async fn expired(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(running) => {
            running.await;
            *timer = None;
        }
        None => std::future::pending().await,
    }
}

/// One subscription from its call to the end of its stream. Without a receiver it is dropped anyway.
async fn follow(transport: Arc<AgentTransport>, body: Bytes, news: mpsc::UnboundedSender<News>) {
    let response = match subscribe(&transport, body).await {
        Ok(response) => response,
        Err(error) => return drop(news.send(News::Failed(chain(&error)))),
    };
    if !response.status().is_success() {
        return drop(news.send(News::Refused(transport::read(response).await)));
    }
    let _ = news.send(News::Opened);
    let _ = news.send(events(response.into_body(), &news).await);
}

async fn subscribe(transport: &AgentTransport, body: Bytes) -> Result<hyper::Response<Incoming>, DialError> {
    let mut sender = transport.connect().await?;
    transport.post(&mut sender, body).await
}

/// Hands the records on, and returns what ended them.
async fn events(mut body: Incoming, news: &mpsc::UnboundedSender<News>) -> News {
    let mut decoder = RecordDecoder::default();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return News::Ended { orderly: false } };
        decoder.feed(frame.data_ref().map_or(&[], |data| data));
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => drop(news.send(News::Record(record))),
                Ok(None) => break,
                Err(garbage) => return News::Garbage(garbage.to_string()),
            }
        }
    }
    News::Ended { orderly: decoder.is_idle() }
}

/// Every call but SUBSCRIBE, one after the other over one connection that is kept.
async fn call_in_turn(
    transport: Arc<AgentTransport>,
    mut calls: mpsc::UnboundedReceiver<Bytes>,
    answers: mpsc::UnboundedSender<Result<CallAnswer, String>>,
) {
    let mut kept: Option<Sender> = None;
    while let Some(body) = calls.recv().await {
        let answer = call(&transport, &mut kept, body).await;
        if answer.is_err() {
            kept = None;
        }
        if answers.send(answer.map_err(|error| chain(&error))).is_err() {
            return;
        }
    }
}

async fn call(
    transport: &AgentTransport,
    kept: &mut Option<Sender>,
    body: Bytes,
) -> Result<CallAnswer, DialError> {
    if let Some(sender) = kept {
        // An agent that was restarted has closed it. The same call twice does no harm: an update is
        // known by its uuid.
        if let Ok(response) = transport.post(sender, body.clone()).await {
            return Ok(transport::read(response).await);
        }
    }
    let sender = kept.insert(transport.connect().await?);
    Ok(transport::read(transport.post(sender, body).await?).await)
}
