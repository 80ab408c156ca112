//! Modern clients lose their connection, their connector, or their room's owner, and miss nothing.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::{net::SocketAddr, time::Duration};

use client::{
    Client, Closed, Code, Dialect, Error, Joined, Member, Options, Outcome, Placed, Position, Push,
    Resume, Seen, Transport,
};
use e2e::{Cluster, Shape, http};
use model::Role;
use tokio::time::timeout;

const ROOM: &str = "r";
/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(30);

fn modern() -> Options {
    Options { modern: true, ..Options::default() }
}

/// A client in the room, and everything it has heard, in words.
struct User {
    client: Client,
    resume: Resume,
    heard: Vec<String>,
}

impl User {
    async fn enter(connector: SocketAddr, name: &str) -> Self {
        let (user, joined) = Self::try_enter(connector, name, None).await.unwrap();
        assert_eq!(joined.outcome, Outcome::Joined);
        user
    }

    /// Enters, or comes back. What was missed counts as heard.
    async fn try_enter(
        connector: SocketAddr,
        name: &str,
        resume: Option<&Resume>,
    ) -> client::Result<(Self, Joined)> {
        Self::try_enter_over(Transport::default(), connector, name, resume).await
    }

    async fn try_enter_over(
        transport: Transport,
        connector: SocketAddr,
        name: &str,
        resume: Option<&Resume>,
    ) -> client::Result<(Self, Joined)> {
        let options = Options { transport, ..modern() };
        let mut client = Client::connect(connector, &options).await?;
        let joined = client.join(name, ROOM, resume).await?;
        let mut place = resume.map_or(Position::default(), |it| it.position);
        let mut heard = Vec::new();
        if joined.outcome == Outcome::Resumed {
            for event in &joined.events {
                heard.push(follow(event, &mut place));
            }
        }
        assert!(place <= joined.resume.position, "{place} {joined:?}");
        Ok((Self { client, resume: joined.resume.clone(), heard }, joined))
    }

    /// Loses the connection without a word.
    fn vanish(self) -> Resume {
        self.resume
    }

    async fn say(&mut self, text: &str) {
        self.client.say(text, "*", text).await.unwrap();
    }

    /// Listens until it has heard that.
    async fn hear(&mut self, last: &str) -> &[String] {
        while !self.heard.iter().any(|it| it == last) {
            let placed = timeout(PATIENCE, self.client.next_placed());
            let placed = placed.await.unwrap_or_else(|_| panic!("no {last} in {:?}", self.heard));
            let words = follow(&placed.unwrap(), &mut self.resume.position);
            self.heard.push(words);
        }
        &self.heard
    }
}

/// What has happened, in words. It must stand behind all before it.
fn follow(placed: &Placed, place: &mut Position) -> String {
    let position = placed.position.unwrap();
    assert!(position > *place, "{position} after {place}: {placed:?}");
    *place = position;
    match &placed.push {
        Push::Chat { text, target, .. } if target == "*" => text.clone(),
        Push::Chat { text, target, .. } => format!("{text} for {target}"),
        Push::Add { user } => format!("+{user}"),
        Push::Leave { user } => format!("-{user}"),
        Push::Count { .. } | Push::Other { .. } => format!("{:?}", placed.push),
    }
}

/// What happens while alice is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    HerConnectorIsKilled,
    TheChatIsKilled,
}

async fn start(name: &str) -> Cluster {
    Cluster::start(name, Shape::new(2, 2)).await.unwrap()
}

/// Kills the only chat, the owner of all rooms, and starts its next life.
async fn kill_owner(cluster: &mut Cluster) {
    cluster.kill("chat-1").unwrap();
    cluster.restart("chat-1").await.unwrap();
}

/// Alice is away and comes back at `back`, an index of the connectors; she was at the first.
async fn away_and_back(cluster: &mut Cluster, back: usize, meanwhile: Meanwhile) {
    let connectors = cluster.connectors();
    let mut bob = User::enter(connectors[1], "bob").await;
    let mut alice = User::enter(connectors[0], "alice").await;
    bob.hear("+alice").await;
    bob.say("before").await;
    alice.hear("before").await;

    if meanwhile == Meanwhile::HerConnectorIsKilled {
        cluster.kill("connector-1").unwrap();
    }
    let resume = alice.vanish();
    bob.say("one").await;
    if meanwhile == Meanwhile::TheChatIsKilled {
        kill_owner(cluster).await;
    }
    bob.client.say("w", "alice", "psst").await.unwrap();
    bob.say("two").await;

    let (mut alice, joined) =
        User::try_enter(connectors[back], "alice", Some(&resume)).await.unwrap();
    assert_eq!(joined.outcome, Outcome::Resumed, "{meanwhile:?}");
    assert_eq!(joined.users, ["bob", "alice"], "{meanwhile:?}");
    assert_eq!(alice.heard, ["one", "psst for alice", "two"], "{meanwhile:?}");
    bob.say("after").await;
    alice.say("last").await;
    let heard = alice.hear("last").await;
    assert_eq!(heard, ["one", "psst for alice", "two", "after", "last"], "{meanwhile:?}");
    // She was not missed.
    let heard = bob.hear("last").await;
    assert_eq!(heard, ["+alice", "before", "one", "two", "after", "last"], "{meanwhile:?}");
}

#[tokio::test]
async fn at_the_same_connector() {
    let mut cluster = start("resume-same").await;
    away_and_back(&mut cluster, 0, Meanwhile::Nothing).await;
}

#[tokio::test]
async fn at_another_connector() {
    let mut cluster = start("resume-other").await;
    away_and_back(&mut cluster, 1, Meanwhile::Nothing).await;
}

#[tokio::test]
async fn after_the_connector_was_killed() {
    let mut cluster = start("resume-connector").await;
    away_and_back(&mut cluster, 1, Meanwhile::HerConnectorIsKilled).await;
}

#[tokio::test]
async fn after_the_chat_was_killed() {
    let mut cluster = Cluster::start("resume-chat", Shape::new(2, 1)).await.unwrap();
    away_and_back(&mut cluster, 0, Meanwhile::TheChatIsKilled).await;
}

/// Two losses at once may cost what was said just then. That is told, and goes by.
#[tokio::test]
async fn after_a_connector_and_the_chat_were_killed() {
    let mut cluster = Cluster::start("resume-both", Shape::new(2, 1)).await.unwrap();
    let gate = cluster.gate().to_string();
    let (mut bob, _) = Member::enter(&gate, &modern(), "bob", ROOM).await.unwrap();
    let (mut alice, _) = Member::enter(&gate, &modern(), "alice", ROOM).await.unwrap();
    bob.send("*", "before").await.unwrap();
    cluster.kill("connector-1").unwrap();
    kill_owner(&mut cluster).await;
    let talk = async {
        for number in 0..5 {
            bob.send("*", &format!("b{number}")).await.unwrap();
        }
    };
    let listen = async {
        let mut said = Vec::new();
        let mut reset = false;
        while said.last().is_none_or(|last| last != "b4") {
            match timeout(PATIENCE, alice.next()).await.unwrap().unwrap() {
                Seen::Push(Placed { push: Push::Chat { text, .. }, .. }) => said.push(text),
                Seen::Push(_) | Seen::Lost => {}
                Seen::Back { outcome, .. } => reset |= outcome == Outcome::Reset,
            }
        }
        (said, reset)
    };
    let ((), (said, reset)) = tokio::join!(talk, listen);
    let wanted = ["before", "b0", "b1", "b2", "b3", "b4"];
    // In order, nothing twice, and nothing missing in silence.
    let mut rest = wanted.iter();
    assert!(said.iter().all(|text| rest.any(|it| it == text)), "{said:?}");
    assert!(reset || said == wanted, "{said:?}");
}

#[tokio::test]
async fn a_second_connection_takes_the_place_of_the_first() {
    let cluster = start("resume-displace").await;
    let connectors = cluster.connectors();
    let mut bob = User::enter(connectors[1], "bob").await;
    let mut first = User::enter(connectors[0], "alice").await;
    bob.hear("+alice").await;
    let resume = first.resume.clone();
    let (mut second, joined) =
        User::try_enter(connectors[1], "alice", Some(&resume)).await.unwrap();
    assert_eq!(joined.outcome, Outcome::Resumed);
    let end = loop {
        match timeout(PATIENCE, first.client.next_placed()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let displaced = Closed::WithCode(4409);
    assert!(matches!(&end, Error::Closed(closed) if *closed == displaced), "{end:?}");
    second.say("here").await;
    assert_eq!(bob.hear("here").await, ["+alice", "here"]);
}

/// Clients of Socket.IO say what they want with `enter`, and get the same in their own frames.
#[tokio::test]
async fn over_every_transport_of_socket_io() {
    let cluster = start("resume-socketio").await;
    let connectors = cluster.connectors();
    let mut bob = User::enter(connectors[1], "bob").await;
    let is_socket_io =
        |it: &Transport| matches!(it.dialect(), Dialect::SocketIo09 | Dialect::SocketIo1);
    for transport in Transport::ALL.into_iter().filter(is_socket_io) {
        let name = transport.name().replace('.', "_");
        let enter = async |resume: Option<&Resume>| {
            User::try_enter_over(transport, connectors[0], &name, resume).await.unwrap()
        };
        let (mut alice, joined) = enter(None).await;
        assert_eq!(joined.outcome, Outcome::Joined, "{transport}");
        bob.hear(&format!("+{name}")).await;
        bob.heard.clear();
        let from_bob = format!("{name}: before");
        bob.say(&from_bob).await;
        alice.hear(&from_bob).await;
        // An id that is said twice is applied once, and has one place.
        let first = alice.client.say("k1", "*", "once").await.unwrap();
        assert_eq!(alice.client.say("k1", "*", "once").await.unwrap(), first, "{transport}");
        let nobody = alice.client.say("k2", "nobody", "psst").await.unwrap_err();
        assert_eq!(nobody.code(), Some(Code::Absent), "{transport}");
        alice.hear("once").await;

        let resume = alice.vanish();
        let missed = format!("{name}: meanwhile");
        bob.say(&missed).await;
        bob.client.say(&format!("{name} w"), &name, "psst").await.unwrap();
        let (mut alice, joined) = enter(Some(&resume)).await;
        assert_eq!(joined.outcome, Outcome::Resumed, "{transport}");
        assert_eq!(alice.heard, [missed.clone(), format!("psst for {name}")], "{transport}");

        let mut said = vec![from_bob, "once".to_owned(), missed];
        // One that is told to go while it moves to its WebSocket sees only the end.
        while transport == Transport::SocketIo1Upgrade && alice.client.is_polling() {
            let text = format!("{name}: {}", said.len());
            bob.say(&text).await;
            alice.hear(&text).await;
            said.push(text);
        }

        // Another connection of hers takes the place of this one, which must not fight for it.
        let (mut second, joined) = enter(Some(&alice.resume)).await;
        assert_eq!(joined.outcome, Outcome::Resumed, "{transport}");
        let end = loop {
            match timeout(PATIENCE, alice.client.next_placed()).await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let has_reason = transport.dialect() == Dialect::SocketIo1;
        let reason = if has_reason { "superseded" } else { "" };
        let kicked = Closed::Kicked(reason.to_owned());
        assert!(matches!(&end, Error::Closed(it) if *it == kicked), "{transport}: {end:?}");
        second.say("here").await;
        said.push("here".to_owned());
        assert_eq!(bob.hear("here").await, said, "{transport}");
        bob.heard.clear();
        second.client.close().await.unwrap();
        bob.hear(&format!("-{name}")).await;
    }
}

#[tokio::test]
async fn who_stays_away_has_left_and_still_misses_nothing() {
    let cluster = start("resume-late").await;
    let connectors = cluster.connectors();
    let mut bob = User::enter(connectors[1], "bob").await;
    let alice = User::enter(connectors[0], "alice").await;
    bob.hear("+alice").await;
    let resume = alice.vanish();
    bob.say("one").await;
    // Five seconds later.
    bob.hear("-alice").await;
    bob.say("two").await;
    let (alice, joined) = User::try_enter(connectors[0], "alice", Some(&resume)).await.unwrap();
    assert_eq!(joined.outcome, Outcome::Resumed);
    let said: Vec<_> = alice.heard.iter().filter(|it| !it.contains("alice")).collect();
    assert_eq!(said, ["one", "two"]);
    bob.say("three").await;
    assert_eq!(bob.hear("three").await, ["+alice", "one", "-alice", "two", "+alice", "three"]);
}

#[tokio::test]
async fn a_forged_token_opens_nothing() {
    let cluster = start("resume-forged").await;
    let connectors = cluster.connectors();
    let mut bob = User::enter(connectors[1], "bob").await;
    let mut alice = User::enter(connectors[0], "alice").await;
    bob.hear("+alice").await;
    let place = alice.resume.position;
    // Another's token, one that never was, and one with a letter changed.
    let mut letters = alice.resume.token.clone();
    let last = letters.pop().unwrap();
    letters.push(if last == '0' { '1' } else { '0' });
    for token in [bob.resume.token.clone(), "0".repeat(32), letters] {
        let forged = Resume { token, position: place };
        let refused = tokio::select! {
            refused = User::try_enter(connectors[0], "alice", Some(&forged)) => refused,
            // She is asked whether she lives, and answers.
            heard = alice.client.next_placed() => panic!("{heard:?}"),
        };
        let code = refused.err().and_then(|error| error.code());
        assert_eq!(code, Some(Code::NameTaken));
    }
    bob.client.say("secret", "alice", "for her eyes").await.unwrap();
    alice.vanish();
    bob.hear("-alice").await;
    let forged = Resume { token: "0".repeat(32), position: place };
    let (_, joined) = User::try_enter(connectors[0], "alice", Some(&forged)).await.unwrap();
    assert_eq!(joined.outcome, Outcome::Reset);
    let secret = joined.events.iter().any(|it| it.id.as_deref() == Some("secret"));
    assert!(!secret, "{joined:?}");
}

#[tokio::test]
async fn an_unanswered_message_is_said_once() {
    for round in ["calm", "the chat is killed"] {
        let mut cluster = Cluster::start("resume-resend", Shape::new(2, 1)).await.unwrap();
        let connectors = cluster.connectors();
        let mut bob = User::enter(connectors[1], "bob").await;
        let mut alice = User::enter(connectors[0], "alice").await;
        bob.hear("+alice").await;
        // It arrives; its answer is not waited for.
        alice.client.begin_say("k1", "*", "hello").unwrap();
        bob.hear("hello").await;
        let resume = alice.vanish();
        if round != "calm" {
            kill_owner(&mut cluster).await;
        }
        let (mut alice, joined) =
            User::try_enter(connectors[1], "alice", Some(&resume)).await.unwrap();
        assert_eq!((joined.outcome, &*alice.heard), (Outcome::Resumed, &["hello".to_owned()][..]));
        let position = alice.client.say("k1", "*", "hello").await.unwrap();
        assert_eq!(Some(position), joined.events[0].position, "{round}");
        alice.say("end").await;
        assert_eq!(bob.hear("end").await, ["+alice", "hello", "end"], "{round}");
    }
}

#[tokio::test]
async fn a_newcomer_hears_what_was_said_last() {
    let cluster = start("resume-history").await;
    let connectors = cluster.connectors();
    let mut bob = User::enter(connectors[0], "bob").await;
    for number in 0..60 {
        bob.say(&format!("m{number}")).await;
    }
    bob.client.say("w", "bob", "a whisper").await.unwrap();
    let (_, joined) = User::try_enter(connectors[1], "alice", None).await.unwrap();
    let mut place = Position::default();
    let told: Vec<_> = joined.events.iter().map(|it| follow(it, &mut place)).collect();
    let wanted: Vec<_> = (10..60).map(|number| format!("m{number}")).collect();
    assert_eq!((joined.outcome, told), (Outcome::Joined, wanted));
}

/// As when a lid is closed: nobody says that the connection is of no use any more.
#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up() {
    let mut cluster = Cluster::start("resume-silent", Shape::new(1, 2)).await.unwrap();
    let gate = cluster.gate().to_string();
    let (mut alice, _) = Member::enter(&gate, &modern(), "alice", ROOM).await.unwrap();
    // All who enter from now on are elsewhere.
    cluster.add(Role::Connector).await.unwrap();
    let mut bob = User::enter(cluster.connectors()[1], "bob").await;
    cluster.stop("connector-1").unwrap();
    // Its threads stop one by one.
    let admin = cluster.node("connector-1").unwrap().admin();
    while timeout(Duration::from_millis(200), http::get(admin, "/healthz")).await.is_ok() {}
    bob.say("one").await;
    bob.say("two").await;
    let alice = async {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "two") {
            seen.push(match timeout(PATIENCE, alice.next()).await.unwrap().unwrap() {
                Seen::Push(Placed { push: Push::Chat { text, .. }, .. }) => text,
                Seen::Push(Placed { push: Push::Add { user }, .. }) => format!("+{user}"),
                Seen::Push(Placed { push: Push::Leave { user }, .. }) => format!("-{user}"),
                Seen::Push(placed) => panic!("{placed:?}"),
                Seen::Lost => "lost".to_owned(),
                Seen::Back { outcome, .. } => format!("{outcome:?}"),
            });
        }
        cluster.cont("connector-1").unwrap();
        alice.send("*", "here").await.unwrap();
        seen
    };
    let (seen, heard) = tokio::join!(alice, bob.hear("here"));
    let of_bob: Vec<_> = seen.iter().filter(|it| !it.contains("alice")).collect();
    assert_eq!(of_bob, ["+bob", "lost", "Resumed", "one", "two"], "{seen:?}");
    let said: Vec<_> = heard.iter().filter(|it| !it.contains("alice")).collect();
    assert_eq!(said, ["one", "two", "here"], "{heard:?}");
}

/// Her connector is killed again and again while bob talks; she comes back by herself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_comes_back_by_itself() {
    comes_back_by_itself("resume-member", [Transport::WebSocket; 2]).await;
}

#[tokio::test]
async fn a_member_over_socket_io_comes_back_by_itself() {
    let transports = [Transport::SocketIo09WebSocket, Transport::SocketIo1Upgrade];
    comes_back_by_itself("resume-member-socketio", transports).await;
}

async fn comes_back_by_itself(cluster: &str, [bobs, alices]: [Transport; 2]) {
    const MESSAGES: usize = 300;
    let mut cluster = Cluster::start(cluster, Shape::new(3, 2)).await.unwrap();
    let gate = cluster.gate().to_string();
    let over = |transport| Options { transport, ..modern() };
    let (mut bob, _) = Member::enter(&gate, &over(bobs), "bob", ROOM).await.unwrap();
    let (mut alice, _) = Member::enter(&gate, &over(alices), "alice", ROOM).await.unwrap();
    let talk = async {
        for number in 0..MESSAGES {
            bob.send("*", &format!("b{number}")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bob
    };
    let listen = async {
        let mut said = Vec::new();
        let mut last = String::new();
        while last != format!("b{}", MESSAGES - 1) {
            match timeout(PATIENCE, alice.next()).await.unwrap().unwrap() {
                Seen::Push(Placed { push: Push::Chat { text, .. }, .. }) => {
                    said.push(text.clone());
                    last = text;
                }
                Seen::Push(placed) => panic!("{placed:?}"),
                Seen::Lost => {}
                Seen::Back { outcome, .. } => assert_eq!(outcome, Outcome::Resumed),
            }
        }
        said
    };
    let trouble = async {
        let names: Vec<_> =
            cluster.of(Role::Connector).map(|node| node.name().to_owned()).collect();
        for name in &names {
            cluster.kill(name).unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
            cluster.restart(name).await.unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    let (_bob, said, ()) = tokio::join!(talk, listen, trouble);
    let wanted: Vec<_> = (0..MESSAGES).map(|number| format!("b{number}")).collect();
    assert_eq!(said, wanted);
}
