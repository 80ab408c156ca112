// Timers that keep time in a hidden page, through timer-worker.js where workers exist.

let worker;
let nextId = 1;
const due = new Map();

function startWorker() {
  if (worker !== undefined || typeof Worker === 'undefined') return;
  try {
    worker = new Worker(new URL('./timer-worker.js', import.meta.url));
    worker.onmessage = ({ data: id }) => fire(id);
    worker.onerror = () => {
      // Blocked or missing: what was waiting is late rather than lost.
      worker = null;
      for (const id of [...due.keys()]) setTimeout(fire, 1000, id);
    };
  } catch {
    worker = null;
  }
}

function fire(id) {
  const action = due.get(id);
  due.delete(id);
  action?.();
}

/** Runs `action` once after `delay` milliseconds. Returns a function that cancels it. */
export function after(delay, action) {
  startWorker();
  const id = nextId++;
  due.set(id, action);
  if (!worker) {
    const timer = setTimeout(fire, delay, id);
    return () => {
      clearTimeout(timer);
      due.delete(id);
    };
  }
  worker.postMessage({ id, delay });
  return () => {
    if (due.delete(id)) worker?.postMessage({ id, delay: null });
  };
}
