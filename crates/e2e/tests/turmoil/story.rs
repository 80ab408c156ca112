//! What the nodes say of a run, with the run's time.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    layer::SubscriberExt as _,
};

use crate::world;

/// The lines of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story(Arc<Mutex<Vec<u8>>>);

impl Story {
    /// What writes it. `filter` is one of logs, such as `debug`.
    pub(crate) fn subscriber(&self, filter: Option<&str>) -> impl Subscriber + Send + Sync + use<> {
        let filter = filter.map_or_else(
            || EnvFilter::default().add_directive(LevelFilter::INFO.into()),
            EnvFilter::new,
        );
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_timer(RunTime)
            .with_writer(self.clone());
        tracing_subscriber::registry().with(lines.with_filter(filter))
    }

    pub(crate) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&lines).into_owned()
    }
}

impl io::Write for Story {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Story {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

struct RunTime;

impl FormatTime for RunTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:7.3}", world::now().as_secs_f64())
    }
}
