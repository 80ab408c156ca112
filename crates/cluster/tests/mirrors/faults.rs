//! What goes wrong, and links, whose ends are evidence.

use std::time::Duration;

use model::{Incarnation, Role, Time, limits};

use crate::{
    CHAOS, DELAY_MAX, Delivery, Plant, Sim,
    common::millis,
    judge::{Death, Known},
    node::Process,
};

/// After this long without a word a link is given up.
const LINK_PATIENCE: Duration =
    limits::LINK_KEEPALIVE.saturating_add(limits::LINK_KEEPALIVE_TIMEOUT);

impl Process {
    /// Whether it is stopped, slow, or itself cut off from etcd.
    pub(crate) fn is_hurt(&self, now: Time) -> bool {
        self.is_lost || self.hurt_until > now
    }
}

impl Sim {
    pub(crate) fn next_fault(&mut self) {
        self.fault();
        let next = self.now + self.random.span(100, 1500);
        if next < Time::ZERO + CHAOS {
            self.send(next, Delivery::Fault);
        } else {
            // From here on nothing goes wrong, and somebody is there to own the shards.
            self.send(next, Delivery::Start("chat-last".to_owned()));
        }
    }

    fn fault(&mut self) {
        let all: Vec<_> = self.processes.keys().copied().collect();
        let links: Vec<_> = self.links.iter().copied().collect();
        let Some(victim) = self.random.any(&all) else { return };
        let link = self.random.any(&links);
        match self.random.below(16) {
            0..=2 => self.kill(victim),
            3 | 4 => {
                if let Some(link) = link {
                    self.break_link(link);
                }
            }
            5 => {
                // It has just answered that it lives, or is about to.
                if let Some(link) = link {
                    self.break_link(link);
                    let within = self.random.any(&[20, 150]).unwrap();
                    let at = self.now + self.random.span(1, within);
                    let end = if self.random.below(2) == 0 { link.0 } else { link.1 };
                    self.send(at, Delivery::Kill(end));
                }
            }
            6 | 7 => {
                let span = self.random.span(100, 5000);
                self.stop(victim, span);
            }
            8 => {
                let until = self.now + self.random.span(300, 3000);
                self.note(|| format!("{victim} is slow until {until}"));
                let process = self.processes.get_mut(&victim).unwrap();
                process.slow_until = process.slow_until.max(until);
                process.hurt_until = process.hurt_until.max(until + millis(700));
            }
            9 => {
                let until = self.now + self.random.span(100, 5000);
                self.note(|| format!("{victim} is cut off from etcd until {until}"));
                let process = self.processes.get_mut(&victim).unwrap();
                process.cut_until = process.cut_until.max(until);
                process.hurt_until = process.hurt_until.max(until + 2 * DELAY_MAX);
            }
            10 => {
                let process = self.processes.get_mut(&victim).unwrap();
                process.is_lost = process.follows();
                let session = process.session;
                self.note(|| format!("{victim} loses its connection to etcd"));
                self.send(self.now, Delivery::Lost { to: victim, session });
            }
            11 => {
                let longest = self.random.any(&[300, 1400, 6000]).unwrap();
                self.hang_store(longest);
            }
            12 => self.kill_store(),
            13 => self.store.compact(),
            14 => {
                // A busy machine, on which everything stumbles.
                if let Some(link) = link {
                    self.break_link(link);
                    let within = self.random.any(&[20, 600]).unwrap();
                    let at = self.now + self.random.span(1, within);
                    self.send(at, Delivery::Hiccup);
                }
            }
            _ => self.grow_or_shrink(),
        }
    }

    fn grow_or_shrink(&mut self) {
        let stays =
            |(_, process): &(&Incarnation, &Process)| process.role == Role::Chat && !process.leaves;
        let chats: Vec<_> = self.processes.iter().filter(stays).map(|(me, _)| *me).collect();
        match self.random.any(&chats) {
            Some(leaver) if chats.len() > 1 && self.random.below(2) == 0 => {
                self.note(|| format!("{leaver} is to leave"));
                let process = self.processes.get_mut(&leaver).unwrap();
                process.leaves = true;
                process.state.draining = true;
            }
            Some(_) | None => {
                let name = format!("chat-{}", self.queue.id());
                self.send(self.now, Delivery::Start(name));
            }
        }
    }

    // ---- etcd

    /// As with a new election, or a machine that stands still: nothing is answered, nothing lost.
    pub(crate) fn hang_store(&mut self, longest: u64) {
        let until = self.now + self.random.span(50, longest);
        self.note(|| format!("etcd hangs until {until}"));
        self.store_hangs_until = self.store_hangs_until.max(until);
        self.store_away_at = self.store_away_at.max(Some(until));
    }

    fn kill_store(&mut self) {
        if self.store_is_dead {
            return;
        }
        self.note(|| "etcd dies".to_owned());
        self.store_is_dead = true;
        let back = self.now + self.random.span(50, 6000);
        self.store_away_at = self.store_away_at.max(Some(back));
        for (to, session) in
            self.processes.iter().map(|(me, it)| (*me, it.session)).collect::<Vec<_>>()
        {
            let at = self.now + self.delay();
            self.send(at, Delivery::Lost { to, session });
        }
        let renews_leases = self.random.below(2) == 0;
        self.send(back, Delivery::StoreBack { renews_leases });
    }

    // ---- nodes

    pub(crate) fn kill(&mut self, victim: Incarnation) {
        let Some(process) = self.processes.get(&victim) else { return };
        let (name, leaves) = (process.name.clone(), process.leaves);
        self.note(|| format!("{name} is killed"));
        self.counts.kills += 1;
        self.end(victim);
        self.expect_end_of_lease(victim);
        if !leaves {
            let at = self.now + self.random.span(200, 6000);
            self.send(at, Delivery::Start(name));
        }
    }

    /// A process is no more: its system ends its links.
    pub(crate) fn end(&mut self, node: Incarnation) {
        self.processes.remove(&node);
        self.dead.insert(node, self.now);
        let of_it =
            |(connector, chat): &(Incarnation, Incarnation)| *connector == node || *chat == node;
        for link in self.links.iter().copied().filter(of_it).collect::<Vec<_>>() {
            self.links.remove(&link);
            let peer = if link.0 == node { link.1 } else { link.0 };
            self.tell_broken(peer, node);
        }
    }

    fn stop(&mut self, victim: Incarnation, span: Duration) {
        let until = self.now + span;
        self.note(|| format!("{victim} is stopped until {until}"));
        let process = self.processes.get_mut(&victim).unwrap();
        process.stopped_until = process.stopped_until.max(until);
        process.hurt_until = process.hurt_until.max(until + 2 * DELAY_MAX);
        let patience = LINK_PATIENCE + self.random.span(0, 500);
        self.send(self.now + patience, Delivery::GiveUp(victim));
    }

    // ---- links

    pub(crate) fn dial(&mut self, connector: Incarnation, chat: Incarnation) {
        let (Some(from), Some(to)) = (self.processes.get(&connector), self.processes.get(&chat))
        else {
            return;
        };
        if !from.map.nodes.contains_key(&chat) {
            return;
        }
        if from.stopped_until > self.now || to.stopped_until > self.now {
            let later = self.now + millis(200);
            return self.send(later, Delivery::Dial { connector, chat });
        }
        self.links.insert((connector, chat));
    }

    /// A link ends at one end or the other, though both live.
    fn break_link(&mut self, (connector, chat): (Incarnation, Incarnation)) {
        self.note(|| format!("the link of {connector} and {chat} breaks"));
        self.links.remove(&(connector, chat));
        let who = self.random.below(3);
        if who != 0 {
            self.tell_broken(connector, chat);
        }
        if who != 1 {
            self.tell_broken(chat, connector);
        }
        self.send(self.now + millis(100), Delivery::Dial { connector, chat });
    }

    /// Peers of a node that says nothing end their links to it: evidence for that node only, which
    /// finds them so when it goes on.
    pub(crate) fn give_up(&mut self, node: Incarnation) {
        if self.processes.get(&node).is_none_or(|process| process.stopped_until <= self.now) {
            return;
        }
        let of_it =
            |(connector, chat): &(Incarnation, Incarnation)| *connector == node || *chat == node;
        for link in self.links.iter().copied().filter(of_it).collect::<Vec<_>>() {
            let peer = if link.0 == node { link.1 } else { link.0 };
            if self.processes[&peer].stopped_until > self.now {
                continue;
            }
            self.links.remove(&link);
            self.tell_broken(node, peer);
            if self.plant == Some(Plant::SilenceIsEvidence) {
                let at = self.now + self.delay();
                self.send(at, Delivery::Broken { to: peer, of: node });
            }
            let (connector, chat) = link;
            self.send(self.now + millis(300), Delivery::Dial { connector, chat });
        }
    }

    fn tell_broken(&mut self, to: Incarnation, of: Incarnation) {
        self.evidence.insert(of, self.now);
        let at = self.now + self.delay();
        self.send(at, Delivery::Broken { to, of });
    }

    pub(crate) fn link_broken(&mut self, me: Incarnation, of: Incarnation) {
        if !self.processes[&me].follows() {
            // The shell keeps it until it follows again: as good as never.
            return;
        }
        if self.dead.contains_key(&of) {
            self.expect_doubt(me, of);
        } else if self.store.is_mute(of) {
            self.counts.mute_spared += 1;
        }
        self.take(me, cluster::mirror::Event::Broken(of));
    }

    // ---- what is to be expected of those who are there

    /// Whoever has been answered for a lease, and is well, sees to it that the dead go.
    fn expect_end_of_lease(&mut self, node: Incarnation) {
        let Some(lease) = self.store.sign(node).map(|_| self.timing.lease) else { return };
        let patience = lease + 2 * crate::SWEEP + self.turns() + 4 * DELAY_MAX;
        for (witness, process) in &self.processes {
            if self.is_witness(process) {
                let (witness, session) = (*witness, process.session);
                let known = Known::ByLease;
                let death = Death { node, witness, session, since: self.now, known };
                self.queue.send(self.now + patience, Delivery::Due(death));
            }
        }
    }

    fn expect_doubt(&mut self, witness: Incarnation, node: Incarnation) {
        let process = &self.processes[&witness];
        if self.store.is_mute(witness) || self.store.is_mute(node) || !self.store.has(node) {
            return;
        }
        let patience = self.timing.after_break + self.turns() + 8 * DELAY_MAX;
        let (known, due) = if self.is_witness(process) {
            (Known::ByDoubt, self.now + patience)
        } else if self.is_fresh(process) && self.store.has_done(node, witness) {
            (Known::Fresh, self.now + patience)
        } else if self.is_fresh(process) {
            let settled = process.follows_since.unwrap() + self.timing.settle;
            (Known::Fresh, settled.max(self.now) + patience)
        } else {
            return;
        };
        let session = process.session;
        self.send(due, Delivery::Due(Death { node, witness, session, since: self.now, known }));
    }

    /// Whether it has been answered for a lease, and is well.
    fn is_witness(&self, process: &Process) -> bool {
        let since = process.follows_since.filter(|_| process.follows());
        since.is_some_and(|since| self.now - since > self.timing.lease)
            && !process.is_hurt(self.now)
            && !self.store_was_away(self.now)
    }

    /// Whether it has joined and followed ever since.
    fn is_fresh(&self, process: &Process) -> bool {
        process.session == 1
            && process.follows()
            && !process.has_missed_answers
            && process.hurt_until == Time::ZERO
            && !self.store_was_away(self.now)
    }

    /// Each of those before it may be one that cannot act.
    fn turns(&self) -> Duration {
        millis(100) * u32::try_from(self.processes.len() + self.dead.len()).unwrap()
    }

    /// Whether the store was away, or nodes are not back from that, at `since` or later.
    pub(crate) fn store_was_away(&self, since: Time) -> bool {
        self.store_away_at.is_some_and(|at| at + self.timing.settle >= since)
    }
}
