//! The admin port: metrics for Prometheus, health for a supervisor.

use std::{
    io,
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use crate::{Readiness, Tasks, net, resources::Usage};

/// Upper bounds of the buckets of every histogram in seconds: loopback deliveries take tenths of
/// a millisecond, takeovers seconds.
const BUCKETS_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Upper bounds of the buckets of every other histogram, which count or weigh something.
const BUCKETS_COUNTS: [f64; 12] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
];
/// How often samples of histograms are put into their buckets, which bounds the memory they take
/// when nobody asks for metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// Starts recording metrics; the first call of a process wins.
///
/// # Errors
///
/// If something else records them already.
fn record() -> Result<&'static PrometheusHandle, String> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets(&BUCKETS_COUNTS)
            .and_then(|builder| {
                let seconds = Matcher::Suffix("_seconds".to_owned());
                builder.set_buckets_for_metric(seconds, &BUCKETS_SECONDS)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| format!("cannot record metrics: {error}"))
    });
    handle.as_ref().map_err(Clone::clone)
}

/// A bound admin port, not yet served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    metrics: &'static PrometheusHandle,
}

impl Admin {
    /// Binds the port, to be served by `tasks`, and starts recording metrics: what is described or
    /// counted before is lost.
    ///
    /// # Errors
    ///
    /// If the address cannot be had; the text says what to do.
    pub fn bind(address: SocketAddr, tasks: &Tasks) -> io::Result<Self> {
        let _threads = tasks.enter();
        let metrics = record().map_err(io::Error::other)?;
        let listener = net::bind(address, "--admin")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, metrics })
    }

    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `tasks` are cancelled.
    pub fn serve(self, readiness: Readiness, tasks: &Tasks) {
        let state = Served {
            readiness,
            metrics: self.metrics,
            tasks: tasks.clone(),
            started: SystemTime::now(),
        };
        let router = Router::new()
            .route("/metrics", get(metrics_page))
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .fallback(|| async {
                let text = "nothing here; ask for /metrics, /healthz or /readyz\n";
                (StatusCode::NOT_FOUND, text)
            })
            .with_state(state);
        let token = tasks.token();
        let listener = self.listener;
        tasks.spawn("admin", async move {
            let ended = token.clone().cancelled_owned();
            let served = axum::serve(listener, router).with_graceful_shutdown(ended);
            tokio::select! {
                result = served => if let Err(error) = result {
                    tracing::error!(%error, "admin port failed");
                },
                // An open request must not hold the process.
                () = token.cancelled() => {}
            }
        });
        let (token, metrics) = (tasks.token(), self.metrics);
        tasks.spawn("metrics upkeep", async move {
            while token.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
                metrics.run_upkeep();
            }
        });
    }
}

#[derive(Clone)]
struct Served {
    readiness: Readiness,
    metrics: &'static PrometheusHandle,
    tasks: Tasks,
    started: SystemTime,
}

async fn metrics_page(State(served): State<Served>) -> impl IntoResponse {
    #[expect(clippy::cast_precision_loss, reason = "tasks do not come in 2^52")]
    metrics::gauge!("tangelo_tasks").set(served.tasks.count() as f64);
    let ready = if served.readiness.is_ready() { 1.0 } else { 0.0 };
    metrics::gauge!("tangelo_ready").set(ready);
    let text = served.metrics.render() + &Usage::now().render(served.started);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn readyz(State(served): State<Served>) -> impl IntoResponse {
    match served.readiness.reasons() {
        reasons if reasons.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
        reasons => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}
