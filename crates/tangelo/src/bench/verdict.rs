//! What a run was found to be, of one process or of several.

use std::{fmt, time::Duration};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use verify::history::{Kind, Report};

/// Longest latency that is told apart, in microseconds.
pub(super) const LATENCY_MAX: u64 = 60_000_000;

/// What is told of a latency: the median, what one of a hundred and one of a thousand exceed, the
/// worst.
const QUANTILES: [f64; 4] = [0.5, 0.99, 0.999, 1.0];

/// What the history checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) sessions: u64,
    pub(super) sent: u64,
    pub(super) acked: u64,
    pub(super) deliveries: u64,
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) disordered: u64,
    /// Broken promises of any kind.
    pub(super) violations: u64,
    /// What was broken, for a person; of several processes, of the first that has something.
    text: String,
}

impl Verdict {
    pub(super) const fn is_clean(&self) -> bool {
        self.violations == 0
    }

    /// What was broken, in words; nothing if nothing was.
    pub(super) fn found(&self) -> Option<&str> {
        (!self.is_clean()).then_some(&self.text)
    }

    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.sent += other.sent;
        self.acked += other.acked;
        self.deliveries += other.deliveries;
        self.lost += other.lost;
        self.twice += other.twice;
        self.disordered += other.disordered;
        self.violations += other.violations;
        if self.text.is_empty() {
            self.text = other.text;
        }
    }
}

impl From<&Report> for Verdict {
    fn from(report: &Report) -> Self {
        let count = |kind| report.count(kind);
        Self {
            sessions: report.sessions,
            sent: report.sends,
            acked: report.acked,
            deliveries: report.deliveries,
            lost: count(Kind::Lost) + count(Kind::Gap),
            twice: count(Kind::Twice),
            disordered: count(Kind::SenderOrder) + count(Kind::RoomOrder),
            violations: report.counts.values().sum(),
            text: if report.is_clean() { String::new() } else { report.to_string() },
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, sent, acked, deliveries, violations, .. } = self;
        write!(
            f,
            "{sessions} sessions, {sent} sends, {acked} acknowledged, {deliveries} deliveries: "
        )?;
        if self.is_clean() {
            return f.write_str("clean");
        }
        write!(f, "{violations} violations, such as\n{}", self.text)
    }
}

/// What clients have measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// From due to delivered, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// How late the generator itself was at worst.
    pub(super) late: Duration,
    /// How often somebody had to try again to come in.
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) closed: u64,
}

impl Measured {
    /// Nobody has played yet.
    ///
    /// # Errors
    ///
    /// If the histogram's bounds make no sense: never.
    pub(super) fn nothing() -> anyhow::Result<Self> {
        Ok(Self { latency: histogram()?, late: Duration::ZERO, retried: 0, refused: 0, closed: 0 })
    }

    /// A quantile of the latency, in milliseconds.
    pub(super) fn millis(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Deliveries per second, of messages that were due within these seconds.
    pub(super) fn per_second(&self, seconds: u32) -> f64 {
        self.latency.len() as f64 / f64::from(seconds)
    }

    pub(super) fn latency_json(&self) -> Value {
        let [p50, p99, p999, max] = QUANTILES.map(|quantile| self.millis(quantile));
        json!({ "p50": p50, "p99": p99, "p999": p999, "max": max })
    }

    pub(super) fn latency_text(&self) -> String {
        let [p50, p99, p999, max] = QUANTILES.map(|quantile| self.millis(quantile));
        format!("p50 {p50:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms")
    }

    /// Takes in what others have measured.
    ///
    /// # Errors
    ///
    /// If the histograms' bounds differ: never.
    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency)?;
        self.late = self.late.max(other.late);
        self.retried += other.retried;
        self.refused += other.refused;
        self.closed += other.closed;
        Ok(())
    }
}

/// What is left of a game.
pub(super) struct Judged {
    pub(super) measured: Measured,
    pub(super) verdict: Verdict,
}

impl Judged {
    /// Nobody has played yet.
    ///
    /// # Errors
    ///
    /// As [`Measured::nothing`].
    pub(super) fn nothing() -> anyhow::Result<Self> {
        Ok(Self { measured: Measured::nothing()?, verdict: Verdict::default() })
    }

    /// Takes in what another process has seen.
    pub(super) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.measured.add(&other.measured)?;
        self.verdict.add(other.verdict);
        Ok(())
    }

    /// As one process tells another.
    pub(super) fn to_json(&self) -> Value {
        let Self { measured, verdict } = self;
        let buckets = measured.latency.iter_recorded();
        let buckets =
            buckets.map(|it| json!([it.value_iterated_to(), it.count_since_last_iteration()]));
        json!({
            "latency": buckets.collect::<Vec<_>>(),
            "late_us": u64::try_from(measured.late.as_micros()).unwrap_or(u64::MAX),
            "retried": measured.retried,
            "refused": measured.refused,
            "closed": measured.closed,
            "sessions": verdict.sessions,
            "sent": verdict.sent,
            "acked": verdict.acked,
            "deliveries": verdict.deliveries,
            "lost": verdict.lost,
            "twice": verdict.twice,
            "disordered": verdict.disordered,
            "violations": verdict.violations,
            "text": verdict.text,
        })
    }

    /// What [`Judged::to_json`] wrote.
    ///
    /// # Errors
    ///
    /// If it did not.
    pub(super) fn from_json(json: &Value) -> anyhow::Result<Self> {
        let number = |name: &str| json[name].as_u64().with_context(|| format!("no {name}"));
        let mut latency = histogram()?;
        for bucket in json["latency"].as_array().context("no latency")? {
            let (value, count) = (bucket[0].as_u64(), bucket[1].as_u64());
            latency.record_n(value.context("no value")?, count.context("no count")?)?;
        }
        Ok(Self {
            measured: Measured {
                latency,
                late: Duration::from_micros(number("late_us")?),
                retried: number("retried")?,
                refused: number("refused")?,
                closed: number("closed")?,
            },
            verdict: Verdict {
                sessions: number("sessions")?,
                sent: number("sent")?,
                acked: number("acked")?,
                deliveries: number("deliveries")?,
                lost: number("lost")?,
                twice: number("twice")?,
                disordered: number("disordered")?,
                violations: number("violations")?,
                text: json["text"].as_str().unwrap_or_default().to_owned(),
            },
        })
    }
}

/// An empty histogram of latencies.
///
/// # Errors
///
/// If its bounds make no sense: never.
pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LATENCY_MAX, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_tell_each_other_adds_up() {
        let mut one = Judged::nothing().unwrap();
        one.measured.latency.record_n(250, 3).unwrap();
        one.measured.latency.record(70_000).unwrap();
        one.measured.late = Duration::from_micros(7);
        one.verdict = Verdict { sessions: 5, sent: 2, violations: 1, ..Verdict::default() };
        one.verdict.text = "broken".to_owned();
        let copy = Judged::from_json(&one.to_json()).unwrap();
        assert_eq!(copy.measured.latency, one.measured.latency);
        assert_eq!((copy.measured.late, &copy.verdict), (one.measured.late, &one.verdict));
        let mut all = Judged::nothing().unwrap();
        all.add(copy).unwrap();
        all.add(one).unwrap();
        assert_eq!((all.measured.latency.len(), all.verdict.sessions), (8, 10));
        assert!(all.verdict.to_string().ends_with("2 violations, such as\nbroken"));
        assert!(Judged::from_json(&json!({})).is_err());
    }
}
