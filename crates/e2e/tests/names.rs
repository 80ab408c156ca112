//! A name that two want, on real processes, under each policy.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::{
    net::SocketAddr,
    pin::pin,
    time::{Duration, Instant},
};

use client::{Client, Closed, Code, Error, Options, Outcome, Push, Transport};
use e2e::{Cluster, Shape};
use model::Role;
use tokio::{task::JoinSet, time::timeout};

const ROOM: &str = "r";
/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a member has to answer, and the longest that a newcomer may wait for it on a machine
/// that does other things, too.
const SILENCE: (Duration, Duration) = (Duration::from_millis(1900), Duration::from_millis(4000));
/// Within this messages are answered where a member has time enough to answer a probe: there and
/// back several times within [`SILENCE`].
const QUICK: Duration = Duration::from_millis(400);
/// Members that are tried while the machine is busy.
const TRIES: usize = 10;

async fn start(name: &str, policy: Option<&str>) -> Cluster {
    let mut shape = Shape::new(2, 2);
    let policy = policy.map(|policy| ["--duplicates".to_owned(), policy.to_owned()]);
    shape.chat_args = policy.into_iter().flatten().collect();
    Cluster::start(name, shape).await.unwrap()
}

/// A client that is in. It hears and answers nothing unless it is driven.
async fn enter(connector: SocketAddr, transport: Transport, name: &str) -> client::Result<Client> {
    let options = Options { transport, ..Options::default() };
    let mut client = Client::connect(connector, &options).await?;
    client.enter(name, ROOM).await?;
    Ok(client)
}

/// What a client has heard, and how it ended.
type Heard = (Vec<String>, Error);

/// Drives a client to its end.
async fn listen(client: &mut Client) -> Heard {
    let mut heard = Vec::new();
    loop {
        match timeout(PATIENCE, client.next_push()).await.expect("it ends") {
            Ok(Push::Add { user }) => heard.push(format!("+{user}")),
            Ok(Push::Leave { user }) => heard.push(format!("-{user}")),
            Ok(Push::Chat { text, .. }) => heard.push(text),
            Ok(other) => heard.push(format!("{other:?}")),
            Err(error) => return (heard, error),
        }
    }
}

/// Drives a client on the side, until the set is dropped.
fn drive(mut client: Client) -> JoinSet<Heard> {
    let mut driven = JoinSet::new();
    driven.spawn(async move { listen(&mut client).await });
    driven
}

/// Drives a client until it has heard this.
async fn hear(client: &mut Client, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|it| it != last) {
        let push = timeout(PATIENCE, client.next_push()).await;
        let push = push.unwrap_or_else(|_| panic!("no {last} in {heard:?}")).unwrap();
        heard.push(match push {
            Push::Add { user } => format!("+{user}"),
            Push::Leave { user } => format!("-{user}"),
            Push::Chat { text, .. } => text,
            other @ (Push::Count { .. } | Push::Other { .. }) => format!("{other:?}"),
        });
    }
    heard
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Refused { code: 500, .. })
}

/// Lets another client want a name; meanwhile somebody on the member's connector speaks. Answers
/// what the newcomer was told, and the longest that an answer to that somebody took.
async fn want(
    connector: SocketAddr,
    name: &str,
    witness: &mut Client,
) -> (client::Result<Client>, Duration) {
    let mut longest = Duration::ZERO;
    let mut entering = pin!(enter(connector, Transport::WebSocket, name));
    loop {
        let asked = Instant::now();
        tokio::select! {
            entered = &mut entering => return (entered, longest.max(asked.elapsed())),
            said = witness.send("*", "still here") => said.unwrap(),
        }
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// In most dialects a client that lives answers at once, whatever it is in the middle of.
///
/// One that does not answer in time loses its name by right, and on a busy machine that may be the
/// machine's doing. What a probe passes (the owner, the member's connector, this process) a message
/// passes, too: only if such were answered quickly the member had its time, and otherwise another
/// one is tried.
#[tokio::test]
async fn a_member_that_lives_keeps_its_name() {
    let cluster = start("names-alive", None).await;
    let connectors = cluster.connectors();
    let mut witness = enter(connectors[0], Transport::Tcp, "witness").await.unwrap();
    let answered = async || {
        let metric = r#"tangelo_chat_probes_total{outcome="answered"}"#;
        cluster.metric_of(Role::Chat, metric).await.unwrap()
    };
    for (number, transport) in Transport::ALL.into_iter().enumerate() {
        let mut kept = false;
        for member in 0..TRIES {
            let name = format!("u{number}-{member}");
            let client = enter(connectors[0], transport, &name).await.unwrap();
            let mut driven = drive(client);
            let before = answered().await;
            let (entered, longest) = want(connectors[1], &name, &mut witness).await;
            // Refused by the member's word, and not because nobody knew anything in time.
            let by_word = answered().await > before;
            kept = by_word && entered.as_ref().is_err_and(is_refused);
            if kept {
                assert!(driven.try_join_next().is_none(), "{transport:?}");
                break;
            }
            assert!(
                longest > QUICK,
                "{transport:?}: it answered: {by_word}, the newcomer: {entered:?}; messages were \
                 answered within {longest:?}"
            );
            eprintln!("{transport:?}: messages took {longest:?}, too: another try");
        }
        assert!(kept, "{transport:?}: the machine was too busy {TRIES} times");
    }
}

async fn metrics_of_chats(cluster: &Cluster) -> String {
    let (one, other) = tokio::join!(cluster.metrics("chat-1"), cluster.metrics("chat-2"));
    one.unwrap() + &other.unwrap()
}

/// The socket is open, and nobody answers: the name is had again within the time of a probe, not of
/// a heartbeat.
#[tokio::test]
async fn a_member_that_is_silent_loses_its_name() {
    let cluster = start("names-silent", None).await;
    let connectors = cluster.connectors();
    let mut witness = enter(connectors[1], Transport::Tcp, "witness").await.unwrap();
    // A client that nobody drives answers no ping, and polls for nothing.
    let transports = [Transport::WebSocket, Transport::SocketIo09Xhr, Transport::SocketIo1Polling];
    for (number, transport) in transports.into_iter().enumerate() {
        let name = format!("u{number}");
        let mut silent = enter(connectors[0], transport, &name).await.unwrap();
        let asked = Instant::now();
        let entering = enter(connectors[1], Transport::WebSocket, &name);
        let driven = async {
            let mut heard = hear(&mut witness, &format!("-{name}")).await;
            heard.extend(hear(&mut witness, &format!("+{name}")).await);
            heard
        };
        let (entered, heard) = tokio::join!(entering, driven);
        let took = asked.elapsed();
        assert!(entered.is_ok(), "{transport:?}: {entered:?}");
        assert!(took > SILENCE.0 && took < SILENCE.1, "{transport:?}: in after {took:?}");
        let of_name: Vec<_> = heard.iter().filter(|it| it.ends_with(&name)).collect();
        let expected = [format!("+{name}"), format!("-{name}"), format!("+{name}")];
        assert_eq!(of_name, expected.iter().collect::<Vec<_>>(), "{transport:?}: {heard:?}");
        let (_, end) = listen(&mut silent).await;
        assert!(matches!(end, Error::Closed(_)), "{transport:?}: {end:?}");
        if transport == Transport::WebSocket {
            let kicked = Closed::Kicked("replaced".to_owned());
            assert!(matches!(&end, Error::Closed(how) if *how == kicked), "{end:?}");
        }
    }
    let metrics = metrics_of_chats(&cluster).await;
    assert!(metrics.contains(r#"tangelo_chat_probes_total{outcome="unanswered"}"#), "{metrics}");
}

/// The owner is killed while a newcomer waits for its word: the newcomer has its answer all the
/// same, and in time.
#[tokio::test]
async fn a_newcomer_has_its_answer_whoever_dies_meanwhile() {
    let mut cluster = Cluster::start("names-owner", Shape::new(2, 1)).await.unwrap();
    let connectors = cluster.connectors();
    let _silent = enter(connectors[0], Transport::WebSocket, "alice").await.unwrap();
    let asked = Instant::now();
    let newcomer = enter(connectors[1], Transport::WebSocket, "alice");
    let killed = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.kill("chat-1").unwrap();
    };
    let (answer, ()) = tokio::join!(timeout(PATIENCE, newcomer), killed);
    let answer = answer.unwrap();
    let took = asked.elapsed();
    assert!(answer.as_ref().is_err_and(is_refused), "{answer:?}");
    assert!(took < SILENCE.1, "answered after {took:?}");
}

#[tokio::test]
async fn a_newcomer_replaces_a_member_on_another_connector() {
    let cluster = start("names-replace", Some("replace")).await;
    let connectors = cluster.connectors();
    let mut witness = enter(connectors[1], Transport::WebSocket, "witness").await.unwrap();
    let mut old = drive(enter(connectors[0], Transport::WebSocket, "alice").await.unwrap());
    let asked = Instant::now();
    let mut new = enter(connectors[1], Transport::WebSocket, "alice").await.unwrap();
    assert!(asked.elapsed() < SILENCE.0, "nobody is waited for");
    let (heard, end) = old.join_next().await.unwrap().unwrap();
    assert!(heard.is_empty(), "{heard:?}");
    let kicked = Closed::Kicked("replaced".to_owned());
    assert!(matches!(&end, Error::Closed(how) if *how == kicked), "{end:?}");
    new.send("*", "it is me now").await.unwrap();
    let heard = hear(&mut witness, "it is me now").await;
    assert_eq!(heard, ["+alice", "-alice", "+alice", "it is me now"]);
    new.close().await.unwrap();
    assert_eq!(hear(&mut witness, "-alice").await, ["-alice"]);
}

/// Who was replaced does not come back by its key, as long as the name is taken and after.
#[tokio::test]
async fn whoever_was_replaced_does_not_come_back() {
    let cluster = start("names-key", Some("replace")).await;
    let connectors = cluster.connectors();
    let modern = Options { modern: true, ..Options::default() };
    let connect = async |at: usize| Client::connect(connectors[at], &modern).await.unwrap();
    let mut old = connect(0).await;
    let key = old.join("alice", ROOM, None).await.unwrap().resume;
    let mut new = connect(1).await;
    let joined = new.join("alice", ROOM, None).await.unwrap();
    let (_, end) = listen(&mut old).await;
    assert!(matches!(end, Error::Closed(Closed::Kicked(_))), "{end:?}");

    let mut back = connect(0).await;
    let refused = back.join("alice", ROOM, Some(&key)).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::NameTaken), "{refused:?}");
    // The one that has the name comes back by its own.
    let mut again = connect(0).await;
    let resumed = again.join("alice", ROOM, Some(&joined.resume)).await.unwrap();
    assert_eq!(resumed.outcome, Outcome::Resumed);
    again.close().await.unwrap();
    let reset = loop {
        // The leave is on its way.
        match back.join("alice", ROOM, Some(&key)).await {
            Ok(joined) => break joined,
            Err(error) => assert_eq!(error.code(), Some(Code::NameTaken), "{error:?}"),
        }
    };
    assert_eq!(reset.outcome, Outcome::Reset);
}

/// Many want one name at the same time, at both connectors: all get in, one after the other, and
/// one is left.
#[tokio::test]
async fn one_name_wanted_by_many_is_left_to_one() {
    const MANY: usize = 24;
    let cluster = start("names-race", Some("replace")).await;
    let connectors = cluster.connectors();
    for round in 0..4 {
        let name = format!("alice{round}");
        let mut witness = enter(connectors[0], Transport::WebSocket, "witness").await.unwrap();
        let mut all = JoinSet::new();
        for number in 0..MANY {
            let (connector, name) = (connectors[number % 2], name.clone());
            all.spawn(async move {
                let mut client = enter(connector, Transport::WebSocket, &name).await?;
                // Whoever is left says so for ever.
                loop {
                    match timeout(Duration::from_secs(2), client.next_push()).await {
                        Ok(push) => drop(push?),
                        Err(_) => return client::Result::Ok(client),
                    }
                }
            });
        }
        let ends = all.join_all().await;
        let (left, gone): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
        assert_eq!((left.len(), gone.len()), (1, MANY - 1));
        let is_kicked = |end: &client::Result<Client>| matches!(end, Err(Error::Closed(Closed::Kicked(why))) if why == "replaced");
        assert!(gone.iter().all(is_kicked), "{gone:?}");
        let mut winner = left.into_iter().next().unwrap().unwrap();
        winner.send("witness", "alone").await.unwrap();
        let heard = hear(&mut witness, "alone").await;
        let expected = std::iter::once(format!("+{name}"))
            .chain((1..MANY).flat_map(|_| [format!("-{name}"), format!("+{name}")]));
        // The last of the round before may leave only now.
        let of_name: Vec<_> = heard.into_iter().filter(|it| it.ends_with(&name)).collect();
        assert_eq!(of_name, expected.collect::<Vec<_>>());
        winner.close().await.unwrap();
        witness.close().await.unwrap();
    }
}

#[tokio::test]
async fn several_sessions_are_one_member() {
    let cluster = start("names-multi", Some("multi")).await;
    let connectors = cluster.connectors();
    let mut witness = enter(connectors[1], Transport::WebSocket, "witness").await.unwrap();
    let mut phone = enter(connectors[0], Transport::Tcp, "alice").await.unwrap();
    let options = Options::default();
    let mut desk = Client::connect(connectors[1], &options).await.unwrap();
    let users = desk.enter("alice", ROOM).await.unwrap();
    assert_eq!(users, ["witness", "alice"]);
    witness.send("alice", "whisper").await.unwrap();
    phone.send("*", "from the phone").await.unwrap();
    desk.send("*", "from the desk").await.unwrap();
    for session in [&mut phone, &mut desk] {
        let heard = hear(session, "from the desk").await;
        assert_eq!(heard, ["whisper", "from the phone", "from the desk"]);
    }
    phone.close().await.unwrap();
    desk.send("*", "alone").await.unwrap();
    desk.close().await.unwrap();
    let heard = hear(&mut witness, "-alice").await;
    assert_eq!(heard, ["+alice", "from the phone", "from the desk", "alone", "-alice"]);
}
