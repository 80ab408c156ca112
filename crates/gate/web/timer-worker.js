// Timers in a worker: a hidden page may get one timer a minute, but a heartbeat is due every
// few seconds. The page asks for a wake-up, the worker sends it back when due.
const timers = new Map();

self.onmessage = ({ data: { id, delay } }) => {
  clearTimeout(timers.get(id));
  timers.delete(id);
  if (delay === null) return;
  timers.set(
    id,
    setTimeout(() => {
      timers.delete(id);
      self.postMessage(id);
    }, delay),
  );
};
