//! Those who stay and talk, and how long their answers take.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::bail;
use client::{Client, Event, Options, Transport};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// How many share a room.
const ROOM_SIZE: u32 = 10;

/// An answer to a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// When the message was due to be sent.
    pub(super) due: std::time::Instant,
    /// How long after that the answer came.
    pub(super) after: Duration,
}

type Answers = Arc<Mutex<Vec<Answer>>>;

pub(super) struct Survivors {
    tasks: JoinSet<anyhow::Result<()>>,
    answers: Answers,
    end: watch::Sender<bool>,
}

impl Survivors {
    /// Lets so many enter, and talk from now on: so many messages per second in all.
    pub(super) async fn enter(
        gate: SocketAddr,
        transport: Transport,
        count: u32,
        rate: u32,
    ) -> anyhow::Result<Self> {
        let options = Options { transport, ..Options::default() };
        let (answers, end) = (Answers::default(), watch::Sender::new(false));
        let every = Duration::from_secs(1) * count / rate;
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (name, room) = (format!("s{number}"), format!("survivors{}", number / ROOM_SIZE));
            let entry = Client::query_entry(gate, &options, &name, Some(&room)).await?;
            let mut client = Client::connect((entry.host.as_str(), entry.port), &options).await?;
            client.enter(&name, &room).await?;
            let first = Instant::now() + every * number / count;
            tasks.spawn(talk(client, first, every, answers.clone(), end.subscribe()));
        }
        Ok(Self { tasks, answers, end })
    }

    /// Lets them go; answers what they heard.
    ///
    /// # Errors
    ///
    /// If one of them was lost, or refused.
    pub(super) async fn leave(mut self) -> anyhow::Result<Vec<Answer>> {
        self.end.send_replace(true);
        while let Some(talked) = self.tasks.join_next().await {
            talked??;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *answers))
    }
}

async fn talk(
    mut client: Client,
    mut due: Instant,
    every: Duration,
    answers: Answers,
    mut end: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut waiting = BTreeMap::new();
    loop {
        tokio::select! {
            event = client.next() => {
                let Event::Answer { id, result } = event? else { continue };
                result?;
                let Some(sent) = waiting.remove(&id) else { bail!("an answer to nothing") };
                let answer = Answer { due: Instant::into_std(sent), after: sent.elapsed() };
                answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            }
            () = sleep_until(due) => {
                waiting.insert(client.begin_send("*", "is anybody still there?")?, due);
                due += every;
            }
            changed = end.changed() => return Ok(changed?),
        }
    }
}
