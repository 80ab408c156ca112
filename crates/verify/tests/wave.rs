//! Everybody comes at once, to a cluster larger than any machine here could run: the real
//! placement, slots and turnstiles of gates and connectors, in virtual time.
//!
//! ```sh
//! TANGELO_WAVE=100 cargo test --release -p verify --test wave -- --nocapture
//! ```
//!
//! plays a hundred connectors with 100,000 clients each; every run of the tests plays four.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]
#![expect(clippy::disallowed_methods, reason = "how large a wave is asked for by a variable")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use cluster::{ClientAddress, ClusterMap, Connectors, Node, Slots};
use model::{Incarnation, NodeId, Rate, Role, Time, limits};
use session::Turnstile;

const CLIENTS_PER_CONNECTOR: u64 = 100_000;
/// A gate answers four times as many questions as a connector lets clients in.
const CONNECTORS_PER_GATE: u64 = 4;
const ROOM_MEMBERS: u64 = 100;
/// How often loads are told.
const REPORT: Duration = Duration::from_millis(250);
/// What a client needs from an answer to its next connection.
const STEP: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Gates hear of the loads.
    Report,
    /// A client asks its gate.
    Ask(u64),
    /// A client comes to a connector.
    Come(u64, Incarnation),
}

struct Gate {
    connectors: Connectors,
    slots: Slots,
    questions: Turnstile,
}

struct Wave {
    map: ClusterMap,
    gates: Vec<Gate>,
    turnstiles: BTreeMap<Incarnation, Turnstile>,
    loads: BTreeMap<Incarnation, u32>,
    steps: BinaryHeap<Reverse<(Time, Step)>>,
    clients: u64,
    entered: u64,
    /// Answers of a gate or a connector that sent a client away.
    sent_away: (u64, u64),
}

fn node(number: u64, role: Role, admissions: u32) -> Node {
    Node {
        client: Some(ClientAddress { host: None, port: 3050, admissions }),
        ready: true,
        ..Node::new(
            NodeId::new(&format!("{}-{number}", role.name())).unwrap(),
            Incarnation(number),
            role,
        )
    }
}

impl Wave {
    fn new(connectors: u64) -> Self {
        let gates = connectors.div_ceil(CONNECTORS_PER_GATE);
        let admissions = limits::ADMISSIONS_PER_SECOND;
        let nodes = (1..=connectors).map(|number| node(number, Role::Connector, admissions));
        let nodes = nodes.chain((1..=gates).map(|number| node(1000 + number, Role::Gate, 0)));
        let nodes = nodes.map(|node| (node.incarnation, node)).collect();
        let gate = |_| Gate {
            connectors: Connectors::default(),
            slots: Slots::default(),
            questions: Turnstile::new(Rate::even(limits::ENTRIES_PER_SECOND)),
        };
        let turnstile = |number| (Incarnation(number), Turnstile::new(Rate::even(admissions)));
        Self {
            map: ClusterMap { version: 1, nodes, ..ClusterMap::default() },
            gates: (0..gates).map(gate).collect(),
            turnstiles: (1..=connectors).map(turnstile).collect(),
            loads: (1..=connectors).map(|number| (Incarnation(number), 0)).collect(),
            steps: BinaryHeap::new(),
            clients: connectors * CLIENTS_PER_CONNECTOR,
            entered: 0,
            sent_away: (0, 0),
        }
    }

    /// Plays until everybody is in. Returns when that was.
    fn play(&mut self) -> Time {
        self.plan(Time::ZERO, Step::Report);
        for client in 0..self.clients {
            // All within a second: a cut of the power is not told to all in one moment.
            let at = Time::from_start(Duration::from_secs(1).mul_f64(session::share(client)));
            self.plan(at, Step::Ask(client));
        }
        while let Some(Reverse((now, step))) = self.steps.pop() {
            match step {
                Step::Report => self.report(now),
                Step::Ask(client) => self.ask(now, client),
                Step::Come(client, connector) => self.come(now, client, connector),
            }
            if self.entered == self.clients {
                return now;
            }
        }
        panic!("{} of {} came in", self.entered, self.clients)
    }

    fn plan(&mut self, at: Time, step: Step) {
        self.steps.push(Reverse((at, step)));
    }

    fn report(&mut self, now: Time) {
        for (connector, load) in &self.loads {
            self.map.nodes.get_mut(connector).unwrap().load = *load;
        }
        for gate in &mut self.gates {
            gate.connectors.update(now, &self.map);
            gate.slots.update(&self.map);
        }
        self.plan(now + REPORT, Step::Report);
    }

    fn ask(&mut self, now: Time, client: u64) {
        let gates = self.gates.len();
        let gate = &mut self.gates[usize::try_from(client).unwrap() % gates];
        let wait = match gate.questions.turn(now, limits::ENTRY_PATIENCE) {
            Ok(wait) => wait,
            Err(away) => {
                self.sent_away.0 += 1;
                return self.plan(now + away, Step::Ask(client));
            }
        };
        let answered = now + wait;
        let room = format!("room-{}", client / ROOM_MEMBERS);
        let connector = gate.connectors.place(answered, &room).unwrap();
        match gate.slots.take(answered, connector) {
            Ok(slot) => self.plan(answered + slot + STEP, Step::Come(client, connector)),
            Err(away) => {
                self.sent_away.0 += 1;
                self.plan(answered + away, Step::Ask(client));
            }
        }
    }

    fn come(&mut self, now: Time, client: u64, connector: Incarnation) {
        let turnstile = self.turnstiles.get_mut(&connector).unwrap();
        match turnstile.turn(now, limits::ADMISSION_PATIENCE) {
            Ok(_) => {
                *self.loads.get_mut(&connector).unwrap() += 1;
                self.entered += 1;
            }
            Err(away) => {
                self.sent_away.1 += 1;
                self.plan(now + away, Step::Ask(client));
            }
        }
    }
}

#[test]
fn everybody_is_back_soon_and_spread() {
    let asked = std::env::var("TANGELO_WAVE").ok();
    let connectors = asked.map_or(4, |text| text.parse().unwrap());
    let mut wave = Wave::new(connectors);
    let end = wave.play().since_start();
    let most = wave.loads.values().max().copied().unwrap();
    let spread = f64::from(most) / CLIENTS_PER_CONNECTOR as f64;
    let (gates, others) = wave.sent_away;
    eprintln!(
        "{} clients on {connectors} connectors through {} gates: all in after {:.1} s; the fullest \
         connector has {spread:.2} times the mean; sent away {gates} times by gates, {others} \
         times by connectors",
        wave.clients,
        wave.gates.len(),
        end.as_secs_f64(),
    );
    // A connector with 1.25 times its share would take 125 s by its rate alone.
    assert!(end <= Duration::from_secs(150), "{end:?}");
    assert!(spread <= 1.26, "{spread}");
}
