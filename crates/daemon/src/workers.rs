//! A fixed set of tasks that work side by side, each for its shards.

use std::{future::Future, sync::Arc};

use model::{Shard, limits};
use tokio::sync::mpsc;

use crate::Tasks;

/// Queues into all workers of a process, each of which holds [`limits::WORKER_QUEUE_EVENTS_MAX`]
/// inputs. Clones lead to the same workers.
///
/// A shard belongs to one worker for the life of the process, so that what is kept for it needs no
/// lock. Whoever finds a queue full waits, and so holds back the socket or the stream that fills it.
#[derive(Debug)]
pub struct Workers<I> {
    queues: Arc<[mpsc::Sender<I>]>,
}

impl<I> Clone for Workers<I> {
    fn clone(&self) -> Self {
        Self { queues: Arc::clone(&self.queues) }
    }
}

impl<I> Workers<I> {
    /// Starts `count` workers, at least one; `work` makes the task of the one with this number.
    pub fn start<F>(
        count: usize,
        tasks: &Tasks,
        mut work: impl FnMut(usize, mpsc::Receiver<I>) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let queues = (0..count.max(1)).map(|number| {
            let (queue, inputs) = mpsc::channel(limits::WORKER_QUEUE_EVENTS_MAX);
            tasks.spawn("worker", work(number, inputs));
            queue
        });
        Self { queues: queues.collect() }
    }

    fn of(&self, shard: Shard) -> usize {
        shard.index() % self.queues.len()
    }

    /// Hands a shard's input to its worker. Waits while that worker's queue is full.
    pub async fn shard(&self, shard: Shard, input: I) {
        // A closed queue means that the process ends.
        let _ = self.queues[self.of(shard)].send(input).await;
    }

    /// Hands an input to every worker. Waits while a queue is full.
    pub async fn all(&self, mut input: impl FnMut() -> I) {
        for queue in self.queues.iter() {
            let _ = queue.send(input()).await;
        }
    }

    /// Hands things to the workers of their shards, as one input for each worker that gets some.
    /// Those of one shard stay in order. Waits while a queue is full.
    pub async fn batch<T>(
        &self,
        things: Vec<T>,
        shard: impl Fn(&T) -> Shard,
        input: impl Fn(Vec<T>) -> I,
    ) {
        if let [queue] = &*self.queues {
            let _ = queue.send(input(things)).await;
            return;
        }
        let mut parts: Vec<Vec<T>> = Vec::new();
        parts.resize_with(self.queues.len(), Vec::new);
        for thing in things {
            parts[self.of(shard(&thing))].push(thing);
        }
        for (queue, part) in self.queues.iter().zip(parts) {
            if !part.is_empty() {
                let _ = queue.send(input(part)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use super::*;

    type Seen = Arc<Mutex<Vec<Vec<Vec<u16>>>>>;

    /// Workers that note what they get.
    fn workers(count: usize, tasks: &Tasks) -> (Workers<Vec<u16>>, Seen) {
        let seen = Seen::default();
        let workers = Workers::start(count, tasks, |number, mut inputs| {
            let seen = Arc::clone(&seen);
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(Vec::new());
            async move {
                while let Some(input) = inputs.recv().await {
                    seen.lock().unwrap_or_else(PoisonError::into_inner)[number].push(input);
                }
            }
        });
        (workers, seen)
    }

    async fn seen(workers: Workers<Vec<u16>>, seen: Seen, tasks: Tasks) -> Vec<Vec<Vec<u16>>> {
        drop(workers);
        assert!(tasks.drain(Duration::from_secs(5)).await.is_empty());
        std::mem::take(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shard(number: &u16) -> Shard {
        Shard::new(*number).unwrap()
    }

    #[tokio::test]
    async fn each_gets_what_is_its_own_in_order() {
        let tasks = Tasks::new();
        let (workers, noted) = workers(3, &tasks);
        workers.batch(vec![3, 1, 6, 4, 0], shard, |part| part).await;
        workers.shard(shard(&8), vec![8]).await;
        workers.all(|| vec![1000]).await;
        let seen = seen(workers, noted, tasks).await;
        let wanted: [&[&[u16]]; 3] =
            [&[&[3, 6, 0], &[1000]], &[&[1, 4], &[1000]], &[&[8], &[1000]]];
        assert_eq!(
            seen,
            wanted.map(|inputs| inputs.iter().map(|it| it.to_vec()).collect::<Vec<_>>())
        );
    }

    #[tokio::test]
    async fn one_alone_gets_all() {
        let tasks = Tasks::new();
        let (workers, noted) = workers(0, &tasks);
        workers.batch(vec![3, 1, 2], shard, |part| part).await;
        assert_eq!(seen(workers, noted, tasks).await, [vec![vec![3, 1, 2]]]);
    }
}
