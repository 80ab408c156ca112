//! What a run has measured.

use std::{collections::BTreeMap, fmt, time::Duration};

use client::Transport;
use serde_json::{Value, json};

use super::{
    Args,
    processes::{CHAT, CONNECTOR, Costs, Processes, spent},
    verdict::{Judged, Measured},
};

/// Names the columns of [`Outcome::table_row`].
pub(super) const TABLE_HEAD: &str = "\
| dialect | clients | connector memory per idle session | server CPU per delivery | deliveries/s \
| latency p50 · p99 | lost · twice · out of order |
| --- | --- | --- | --- | --- | --- | --- |";

/// Figures, and whether they count.
pub(super) struct Outcome {
    pub(super) args: Args,
    pub(super) transport: Transport,
    pub(super) processes: Processes,
    pub(super) entering: Entering,
    pub(super) speaking: Speaking,
    /// The least memory that the machine had left, in bytes.
    pub(super) memory_left: u64,
}

/// How everybody came in.
pub(super) struct Entering {
    pub(super) joined: u32,
    /// From the first client's start to the last one's reply.
    pub(super) took: Duration,
    /// Before anybody came.
    pub(super) idle: Costs,
    /// When all were in.
    pub(super) entered: Costs,
    /// When all had been in for a moment.
    pub(super) settled: Costs,
}

/// What happened while it was measured.
pub(super) struct Speaking {
    /// How long deliveries and processor time were counted.
    pub(super) window: Duration,
    pub(super) deliveries: u64,
    pub(super) before: Costs,
    pub(super) after: Costs,
    /// Of all rooms but the big one.
    pub(super) judged: Judged,
    pub(super) big_room: Option<Judged>,
}

impl Outcome {
    /// Whether every promise was kept, in the big room too.
    pub(super) fn is_clean(&self) -> bool {
        let Speaking { judged, big_room, .. } = &self.speaking;
        judged.verdict.is_clean() && big_room.as_ref().is_none_or(|it| it.verdict.is_clean())
    }

    /// Those who came in, without the members of the big room.
    fn clients(&self) -> u32 {
        self.entering.joined.saturating_sub(self.args.big_room.unwrap_or(0))
    }

    fn deliveries_per_second(&self) -> f64 {
        self.speaking.deliveries as f64 / self.speaking.window.as_secs_f64()
    }

    fn entries_per_second(&self) -> f64 {
        f64::from(self.entering.joined) / self.entering.took.as_secs_f64()
    }

    /// Processor time of the cluster for one of so many, in microseconds, if it is known.
    fn micros_per(&self, count: u64, before: &Costs, after: &Costs) -> Option<f64> {
        let time = self.processes.processor_time(before, after).as_secs_f64();
        (count > 0 && !self.processes.is_empty()).then(|| time * 1e6 / count as f64)
    }

    fn micros_per_delivery(&self) -> Option<f64> {
        let Speaking { deliveries, before, after, .. } = &self.speaking;
        self.micros_per(*deliveries, before, after)
    }

    fn micros_per_entry(&self) -> Option<f64> {
        let Entering { joined, idle, entered, .. } = &self.entering;
        self.micros_per((*joined).into(), idle, entered)
    }

    /// What the processes of a role have grown by for each session, in bytes, if it is known.
    fn memory_of(&self, role: &str) -> Option<u64> {
        let Entering { joined, idle, settled, .. } = &self.entering;
        self.processes.per_session(role, (idle, settled), *joined)
    }

    fn session_memory(&self) -> Option<u64> {
        self.memory_of(CONNECTOR)
    }

    fn quantile(&self, quantile: f64) -> f64 {
        self.speaking.judged.measured.millis(quantile)
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let sends = match self.args.saturate {
            Some(in_flight) => json!({ "in_flight": in_flight }),
            None => json!({ "per_second": self.args.rate }),
        };
        let Judged { measured, verdict } = &self.speaking.judged;
        let Measured { late, refused, closed, .. } = measured;
        json!({
            "clients": self.clients(),
            "rooms": self.args.rooms.min(self.args.clients),
            "text_bytes": self.args.bytes,
            "dialect": self.transport.name(),
            "sends": sends,
            "entries_tried_again": self.speaking.judged.measured.retried,
            "entries_per_second": self.entries_per_second(),
            "server_cpu_us_per_entry": self.micros_per_entry(),
            "seconds": self.speaking.window.as_secs_f64(),
            "deliveries": self.speaking.deliveries,
            "deliveries_per_second": self.deliveries_per_second(),
            "latency_ms": measured.latency_json(),
            "server_cpu_us_per_delivery": self.micros_per_delivery(),
            "connector_bytes_per_session": self.session_memory(),
            "chat_bytes_per_member": self.memory_of(CHAT),
            "processes": self.each_process(),
            "machine_bytes_left_min": self.memory_left,
            "generator_late_ms_max": late.as_secs_f64() * 1000.0,
            "sent": verdict.sent,
            "acknowledged": verdict.acked,
            "refused": refused,
            "sessions_closed": closed,
            "lost": verdict.lost,
            "duplicated": verdict.twice,
            "out_of_order": verdict.disordered,
            "big_room": self.speaking.big_room.as_ref().map(|judged| self.big_room_json(judged)),
            "clean": self.is_clean(),
            "violations": verdict.found(),
        })
        .to_string()
    }

    /// The same of the big room, where it differs.
    fn big_room_json(&self, judged: &Judged) -> Value {
        let Judged { measured, verdict } = judged;
        json!({
            "members": self.args.big_room,
            "sends": { "per_second": self.args.big_rate },
            "deliveries_per_second": measured.per_second(self.args.seconds),
            "latency_ms": measured.latency_json(),
            "generator_late_ms_max": measured.late.as_secs_f64() * 1000.0,
            "sent": verdict.sent,
            "acknowledged": verdict.acked,
            "refused": measured.refused,
            "sessions_closed": measured.closed,
            "lost": verdict.lost,
            "duplicated": verdict.twice,
            "out_of_order": verdict.disordered,
            "clean": verdict.is_clean(),
            "violations": verdict.found(),
        })
    }

    /// What each process has cost, for JSON.
    fn each_process(&self) -> Vec<Value> {
        let Speaking { before, after, .. } = &self.speaking;
        let each = self.processes.iter().map(|(pid, named)| {
            let memory = after.get(&pid).map_or(0, |cost| cost.memory);
            let entering = spent(pid, &self.entering.idle, &self.entering.entered);
            json!({
                "name": named.name,
                "memory_bytes": memory,
                "cpu_seconds_entering": entering.as_secs_f64(),
                "cpu_seconds": spent(pid, before, after).as_secs_f64(),
            })
        });
        each.collect()
    }

    /// What the processes of each role have cost: a name, and a text.
    fn each_role(&self) -> Vec<(&'static str, String)> {
        let Speaking { before, after, window, .. } = &self.speaking;
        let mut roles = BTreeMap::new();
        for (pid, named) in self.processes.iter() {
            let memory = after.get(&pid).map_or(0, |cost| cost.memory);
            let entering = spent(pid, &self.entering.idle, &self.entering.entered);
            let role: &mut Role = roles.entry(named.role).or_default();
            role.add(memory, entering, spent(pid, before, after));
        }
        roles.iter().map(|(name, role)| (*name, role.text(*window))).collect()
    }

    /// A row of a table in Markdown, under [`TABLE_HEAD`].
    pub(super) fn table_row(&self) -> String {
        let unknown = || "unknown".to_owned();
        let memory = self.session_memory();
        let memory = memory.map(|bytes| format!("{:.1} KiB", bytes as f64 / 1024.0));
        let verdict = &self.speaking.judged.verdict;
        let cost = self.micros_per_delivery().map(|micros| format!("{micros:.1} µs"));
        let (memory, cost) = (memory.unwrap_or_else(unknown), cost.unwrap_or_else(unknown));
        format!(
            "| {} | {} | {memory} | {cost} | {:.0} | {:.1} · {:.1} ms | {} · {} · {} |",
            self.transport,
            self.entering.joined,
            self.deliveries_per_second(),
            self.quantile(0.5),
            self.quantile(0.99),
            verdict.lost,
            verdict.twice,
            verdict.disordered,
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rooms = self.args.rooms.min(self.args.clients);
        let mut row = |name: &str, value: String| writeln!(f, "{name:<28}{value}");
        let unknown = || "unknown: --up or --pids".to_owned();
        row("clients", format!("{} in {rooms} rooms, {}", self.clients(), self.transport))?;
        let (took, per_second) = (self.entering.took.as_secs_f64(), self.entries_per_second());
        let retried = self.speaking.judged.measured.retried;
        row("entries", format!("{per_second:.0}/s, for {took:.1} s, {retried} tried again"))?;
        let cost = self.micros_per_entry().map(|micros| format!("{micros:.0} µs"));
        row("server CPU per entry", cost.unwrap_or_else(unknown))?;
        let sends = match self.args.saturate {
            Some(in_flight) => format!("as fast as answered, {in_flight} in flight each"),
            None => format!("{}/s", self.args.rate),
        };
        row("sends", format!("{sends}, {} bytes of text", self.args.bytes))?;
        let window = self.speaking.window.as_secs_f64();
        row("deliveries", format!("{} in {window:.1} s", self.speaking.deliveries))?;
        row("deliveries/s", format!("{:.0}", self.deliveries_per_second()))?;
        row("latency", self.speaking.judged.measured.latency_text())?;
        let Judged { measured, verdict } = &self.speaking.judged;
        let Measured { late, refused, closed, .. } = measured;
        row("generator late, at most", format!("{:.2} ms", late.as_secs_f64() * 1000.0))?;
        let cost = self.micros_per_delivery().map(|micros| format!("{micros:.2} µs"));
        row("server CPU per delivery", cost.unwrap_or_else(unknown))?;
        let memory = self.session_memory().map(|bytes| format!("{bytes} bytes"));
        row("connector memory/session", memory.unwrap_or_else(unknown))?;
        let memory = self.memory_of(CHAT).map(|bytes| format!("{bytes} bytes"));
        row("chat memory/member", memory.unwrap_or_else(unknown))?;
        for (role, text) in self.each_role() {
            row(role, text)?;
        }
        row("machine memory left", format!("{} MiB at least", self.memory_left >> 20))?;
        row("sent", format!("{} ({} acknowledged)", verdict.sent, verdict.acked))?;
        row("refused, sessions closed", format!("{refused}, {closed}"))?;
        row("lost", verdict.lost.to_string())?;
        row("duplicated", verdict.twice.to_string())?;
        row("out of order", verdict.disordered.to_string())?;
        if let (Some(judged), Some(members)) = (&self.speaking.big_room, self.args.big_room) {
            let Judged { measured, verdict } = judged;
            let (rate, seconds) = (self.args.big_rate, self.args.seconds);
            row("big room", format!("{members} members, not counted above but in the deliveries"))?;
            let per_second = measured.per_second(seconds);
            row("  sends, deliveries/s", format!("{rate}/s, {per_second:.0}"))?;
            row("  latency", measured.latency_text())?;
            row(
                "  generator late, at most",
                format!("{:.2} ms", measured.late.as_secs_f64() * 1e3),
            )?;
            row("  refused, closed", format!("{}, {}", measured.refused, measured.closed))?;
            row("  history", verdict.to_string())?;
        }
        write!(f, "{:<28}{verdict}", "history")
    }
}

/// What the processes of one role have cost.
#[derive(Clone, Copy, Debug, Default)]
struct Role {
    count: u32,
    memory: u64,
    memory_max: u64,
    entering: Duration,
    speaking: Duration,
    speaking_max: Duration,
}

impl Role {
    fn add(&mut self, memory: u64, entering: Duration, speaking: Duration) {
        self.count += 1;
        self.memory += memory;
        self.memory_max = self.memory_max.max(memory);
        self.entering += entering;
        self.speaking += speaking;
        self.speaking_max = self.speaking_max.max(speaking);
    }

    /// Processor time as processors that are busy with it.
    fn text(&self, window: Duration) -> String {
        let busy = |time: Duration| time.as_secs_f64() / window.as_secs_f64();
        format!(
            "{} × {} MiB ({} at most), CPU {:.1} s entering, then {:.2} ({:.2} at most)",
            self.count,
            (self.memory / u64::from(self.count.max(1))) >> 20,
            self.memory_max >> 20,
            self.entering.as_secs_f64(),
            busy(self.speaking),
            busy(self.speaking_max),
        )
    }
}
