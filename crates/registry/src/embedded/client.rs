//! A node's side of the embedded registry.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use cluster::{Claim, Gone, Member, Node, NodeState, Timing};
use daemon::Tasks;
use metrics::counter;
use model::{Incarnation, Shard, Term, limits};
use rpc::{
    dial::Dialer,
    pb,
    registry::{self, Notice, Report},
    token::AttachToken,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::{
    Config, ConfigError,
    membership::{self, CallError, Membership},
    standing::{Standing, describe},
};

type Stub = pb::registry_client::RegistryClient<InterceptedService<Channel, AttachToken>>;

/// Knows where the registry is.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    token: AttachToken,
    timing: Timing,
    dialer: Dialer,
}

impl Client {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let address = match config.address.split_once("://") {
            Some(("http", _)) => config.address.clone(),
            Some(_) => return Err(ConfigError::Scheme(config.address.clone())),
            None => format!("http://{}", config.address),
        };
        let bad = || ConfigError::Address(config.address.clone());
        let endpoint = Endpoint::from_shared(address).map_err(|_| bad())?;
        if endpoint.uri().port_u16().is_none() {
            return Err(bad());
        }
        let timing = config.timing;
        let endpoint = endpoint
            .connect_timeout(timing.call_timeout)
            .tcp_nodelay(true)
            // Notices a registry whose machine is gone or that sleeps. Being wrong costs a
            // reconnect and nothing else.
            .http2_keep_alive_interval(timing.beat)
            .keep_alive_timeout(timing.call_timeout)
            .keep_alive_while_idle(true);
        let token = AttachToken::new(config.token.as_ref());
        Ok(Self { endpoint, token, timing, dialer: config.dialer.clone() })
    }

    pub(crate) fn join(&self, node: Node, tasks: &Tasks) -> Membership {
        // The channel has a task of its own.
        let _threads = tasks.enter();
        let channel = self.dialer.connect_lazy(&self.endpoint);
        let calls = Calls {
            stub: Stub::new(InterceptedService::new(channel, self.token.clone())),
            incarnation: node.incarnation,
            member: Arc::new(Mutex::new(Member::new(node.clone()))),
            timing: self.timing,
        };
        let kind = membership::Calls::Embedded(calls.clone());
        let (standing, membership) = Standing::new(&node, kind, self.timing, tasks);
        let attendance = Attendance { calls, standing };
        let ended = membership.ended.clone().drop_guard();
        tasks.spawn("registry", async move {
            let _ended = ended;
            attendance.run().await;
        });
        membership
    }
}

// ---- claims and releases

/// Carries out claims and releases.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    stub: Stub,
    incarnation: Incarnation,
    member: Arc<Mutex<Member>>,
    timing: Timing,
}

impl Calls {
    pub(crate) async fn claim(&self, shards: &[(Shard, Term)]) -> Result<Vec<Claim>, CallError> {
        let request = registry::write_claim_request(self.incarnation, shards);
        let mut stub = self.stub.clone();
        let answer = timeout(self.timing.call_timeout, stub.claim(request)).await;
        let answer = answer.map_err(|_| CallError::Unknown)?;
        let answer = answer.map_err(|status| call_error(&status))?.into_inner();
        let claims = registry::read_claims(answer).map_err(|_| CallError::Unknown)?;
        self.member().claimed(&claims);
        Ok(claims)
    }

    pub(crate) async fn release(&self, shards: &[(Shard, Term)]) -> Result<(), CallError> {
        let request = registry::write_release(self.incarnation, shards);
        let mut stub = self.stub.clone();
        let answer = timeout(self.timing.call_timeout, stub.release(request)).await;
        let answer = answer.map_err(|_| CallError::Unknown)?;
        answer.map_err(|status| call_error(&status))?;
        self.member().released(shards);
        Ok(())
    }

    fn member(&self) -> std::sync::MutexGuard<'_, Member> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn call_error(status: &Status) -> CallError {
    if status.code() == Code::FailedPrecondition { CallError::NotLive } else { CallError::Unknown }
}

// ---- the stream

/// Keeps a node joined.
struct Attendance {
    calls: Calls,
    standing: Standing,
}

/// Why a stream has ended.
enum End {
    /// The node has left.
    Left,
    /// The incarnation is over.
    Gone(Gone),
    /// The registry was not reached, or is no longer; the text says how.
    Away(String),
}

impl Attendance {
    async fn run(mut self) {
        loop {
            match self.attend().await {
                End::Left => break,
                End::Gone(reason) => return self.standing.lost(reason),
                End::Away(reason) => self.standing.silent(&reason),
            }
            if !self.standing.pause().await {
                break;
            }
        }
        self.standing.lost(Gone::Left);
    }

    /// Joins over one stream and stays until it ends.
    async fn attend(&mut self) -> End {
        let (reports, requests) = mpsc::channel(limits::REGISTRY_REPORTS_MAX);
        self.standing.state.mark_unchanged();
        let state = *self.standing.state.borrow();
        let join = {
            let mut member = self.calls.member();
            member.node_mut().set_state(state);
            Report::Join(Box::new(member.join()))
        };
        report(&reports, join);
        let mut stub = self.calls.stub.clone();
        let opening = async {
            let answer = stub.join(ReceiverStream::new(requests)).await?;
            let mut notices = answer.into_inner();
            let first = notices.message().await?;
            Ok::<_, Status>((notices, first))
        };
        let opened = tokio::select! {
            opened = timeout(self.calls.timing.call_timeout, opening) => opened,
            () = self.standing.ending() => return End::Left,
        };
        let (notices, first) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return End::Away(describe(&status)),
            Err(_) => return End::Away("no answer in time".to_owned()),
        };
        if let Some(end) = self.notice(Ok(first)) {
            return end;
        }
        self.stay(&reports, notices, state).await
    }

    async fn stay(
        &mut self,
        reports: &mpsc::Sender<pb::NodeReport>,
        mut notices: Streaming<pb::MapUpdate>,
        mut told: NodeState,
    ) -> End {
        let beat = self.calls.timing.beat;
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut over = pin!(self.standing.ending());
        loop {
            tokio::select! {
                () = &mut over => break,
                _ = beats.tick() => {
                    told = *self.standing.state.borrow_and_update();
                    report(reports, Report::Beat(told));
                }
                Ok(()) = self.standing.state.changed() => {
                    let state = *self.standing.state.borrow_and_update();
                    // The load waits for the beat; sessions come and go all the time.
                    if (state.ready, state.draining) != (told.ready, told.draining) {
                        told = state;
                        report(reports, Report::Beat(told));
                    }
                }
                notice = notices.message() => {
                    if let Some(end) = self.notice(notice) {
                        return end;
                    }
                }
            }
        }
        report(reports, Report::Leave);
        // The registry ends the stream when it has heard that.
        let farewell = async { while let Ok(Some(_)) = notices.message().await {} };
        let _ = timeout(self.calls.timing.call_timeout, farewell).await;
        End::Left
    }

    /// Takes in what the registry says; says whether the stream ends with it.
    fn notice(&mut self, notice: Result<Option<pb::MapUpdate>, Status>) -> Option<End> {
        let update = match notice {
            Ok(Some(update)) => update,
            Ok(None) => return Some(End::Away("the registry has ended the stream".to_owned())),
            Err(status) => return Some(End::Away(describe(&status))),
        };
        match registry::read_notice(update) {
            Ok(Notice::Welcome) => self.standing.held(),
            Ok(Notice::Map(update)) => {
                let mut member = self.calls.member();
                if let Err(missed) = member.update(update) {
                    return Some(End::Away(missed.to_string()));
                }
                self.standing.publish(Arc::clone(member.map()));
            }
            Ok(Notice::Gone(reason)) => return Some(End::Gone(reason)),
            Err(invalid) => return Some(End::Away(invalid.to_string())),
        }
        None
    }
}

/// A full queue means that the registry does not read; the next report says it all again, and
/// the keepalive ends the stream if it never reads.
fn report(reports: &mpsc::Sender<pb::NodeReport>, report: Report) {
    if reports.try_send(registry::write_report(report)).is_err() {
        counter!("tangelo_registry_reports_dropped_total").increment(1);
    }
}
