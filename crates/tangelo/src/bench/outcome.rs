//! What a run has measured.

use std::{fmt, time::Duration};

use client::Transport;
use hdrhistogram::Histogram;
use serde_json::json;
use verify::history::{Kind, Report};

use super::Args;

/// Names the columns of [`Outcome::table_row`].
pub(super) const TABLE_HEAD: &str = "\
| dialect | clients | connector memory per idle session | server CPU per delivery | deliveries/s \
| latency p50 · p99 | lost · twice · out of order |
| --- | --- | --- | --- | --- | --- | --- |";

/// Figures, and whether they count.
pub(super) struct Outcome {
    pub(super) args: Args,
    pub(super) transport: Transport,
    pub(super) joined: u32,
    /// How long deliveries and processor time were counted.
    pub(super) window: Duration,
    pub(super) deliveries: u64,
    /// From due to delivered, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// Of all processes of the cluster, if they are known.
    pub(super) processor_time: Option<Duration>,
    /// Resident memory of the connectors per session, in bytes.
    pub(super) session_memory: Option<u64>,
    pub(super) refused: u64,
    pub(super) closed: u64,
    /// How late the generator itself was at worst.
    pub(super) late: Duration,
    pub(super) verdict: Report,
}

impl Outcome {
    fn deliveries_per_second(&self) -> f64 {
        self.deliveries as f64 / self.window.as_secs_f64()
    }

    fn micros_per_delivery(&self) -> Option<f64> {
        let time = self.processor_time?;
        (self.deliveries > 0).then(|| time.as_secs_f64() * 1e6 / self.deliveries as f64)
    }

    fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn lost(&self) -> u64 {
        self.verdict.count(Kind::Lost) + self.verdict.count(Kind::Gap)
    }

    fn disordered(&self) -> u64 {
        self.verdict.count(Kind::SenderOrder) + self.verdict.count(Kind::RoomOrder)
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let sends = match self.args.saturate {
            Some(in_flight) => json!({ "in_flight": in_flight }),
            None => json!({ "per_second": self.args.rate }),
        };
        json!({
            "clients": self.joined,
            "rooms": self.args.rooms.min(self.args.clients),
            "text_bytes": self.args.bytes,
            "dialect": self.transport.name(),
            "sends": sends,
            "seconds": self.window.as_secs_f64(),
            "deliveries": self.deliveries,
            "deliveries_per_second": self.deliveries_per_second(),
            "latency_ms": {
                "p50": self.quantile(0.5),
                "p99": self.quantile(0.99),
                "p999": self.quantile(0.999),
                "max": self.quantile(1.0),
            },
            "server_cpu_us_per_delivery": self.micros_per_delivery(),
            "connector_bytes_per_session": self.session_memory,
            "generator_late_ms_max": self.late.as_secs_f64() * 1000.0,
            "sent": self.verdict.sends,
            "acknowledged": self.verdict.acked,
            "refused": self.refused,
            "sessions_closed": self.closed,
            "lost": self.lost(),
            "duplicated": self.verdict.count(Kind::Twice),
            "out_of_order": self.disordered(),
            "clean": self.verdict.is_clean(),
        })
        .to_string()
    }

    /// A row of a table in Markdown, under [`TABLE_HEAD`].
    pub(super) fn table_row(&self) -> String {
        let unknown = || "unknown".to_owned();
        let memory = self.session_memory.map(|bytes| format!("{:.1} KiB", bytes as f64 / 1024.0));
        let cost = self.micros_per_delivery().map(|micros| format!("{micros:.1} µs"));
        let (memory, cost) = (memory.unwrap_or_else(unknown), cost.unwrap_or_else(unknown));
        format!(
            "| {} | {} | {memory} | {cost} | {:.0} | {:.1} · {:.1} ms | {} · {} · {} |",
            self.transport,
            self.joined,
            self.deliveries_per_second(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.lost(),
            self.verdict.count(Kind::Twice),
            self.disordered(),
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rooms = self.args.rooms.min(self.args.clients);
        let mut row = |name: &str, value: String| writeln!(f, "{name:<28}{value}");
        row("clients", format!("{} in {rooms} rooms, {}", self.joined, self.transport))?;
        let sends = match self.args.saturate {
            Some(in_flight) => format!("as fast as answered, {in_flight} in flight each"),
            None => format!("{}/s", self.args.rate),
        };
        row("sends", format!("{sends}, {} bytes of text", self.args.bytes))?;
        let window = self.window.as_secs_f64();
        row("deliveries", format!("{} in {window:.1} s", self.deliveries))?;
        row("deliveries/s", format!("{:.0}", self.deliveries_per_second()))?;
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        let (p999, max) = (self.quantile(0.999), self.quantile(1.0));
        let latency = format!("p50 {p50:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms");
        row("latency", latency)?;
        let late = self.late.as_secs_f64() * 1000.0;
        row("generator late, at most", format!("{late:.2} ms"))?;
        let unknown = || "unknown: --up or --pids".to_owned();
        let cost = self.micros_per_delivery().map(|micros| format!("{micros:.2} µs"));
        row("server CPU per delivery", cost.unwrap_or_else(unknown))?;
        let memory = self.session_memory.map(|bytes| format!("{bytes} bytes"));
        row("connector memory/session", memory.unwrap_or_else(unknown))?;
        let verdict = &self.verdict;
        row("sent", format!("{} ({} acknowledged)", verdict.sends, verdict.acked))?;
        row("refused, sessions closed", format!("{}, {}", self.refused, self.closed))?;
        row("lost", self.lost().to_string())?;
        row("duplicated", verdict.count(Kind::Twice).to_string())?;
        row("out of order", self.disordered().to_string())?;
        write!(f, "{:<28}{verdict}", "history")
    }
}
