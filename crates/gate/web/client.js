// A person in a room: asks the gate, opens a link, enters, speaks and listens; when the link breaks
// it does all of that again under the same name, until told to leave. Knows nothing of the DOM.

import { Link, LinkError } from './link.js';
import { EVERYONE, Outbox } from './outbox.js';
import { after } from './timers.js';

const ROUTE_ENTER = 'connector.entryHandler.enter';

const GATE_TIMEOUT_MS = 8000;
/** First wait before a new attempt; it doubles up to the limit. Enough for one lost connector. */
const BACKOFF_FIRST_MS = 400;
const BACKOFF_MAX_MS = 15000;
/** A link that lived this long starts the waits from the beginning. */
const STABLE_MS = 10000;
/** Attempts to enter while one's own lost connection still holds the name: some 20 s. */
const GHOST_ATTEMPTS = 10;
const GHOST_WAIT_MS = 1500;
/** Attempts of a first join before the person is told. */
const FIRST_ATTEMPTS = 3;

/** Milliseconds before attempt `attempt` (0, 1, ...): doubling, and never all clients at once. */
export function retryDelay(attempt, random = Math.random) {
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** attempt);
  return Math.round(ceiling * (0.4 + 0.6 * random()));
}

/** The WebSocket address of a connector, as seen from a page served over `pageProtocol`. */
export function socketUrl({ host, port }, pageProtocol) {
  const scheme = pageProtocol === 'https:' ? 'wss' : 'ws';
  const name = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
  return `${scheme}://${name}:${port}/`;
}

/** Why a person is not in the room. `reason` is a word that i18n.js has a sentence for. */
class Refusal extends Error {
  constructor(reason, { final = false, detail = '' } = {}) {
    super(reason);
    this.reason = reason;
    this.final = final;
    this.detail = detail;
  }
}

/**
 * Events, each with `detail`:
 * - `state`: `{ phase, reason, detail, retryAt }`, phase one of idle, joining, online, waiting,
 *   retrying, ended
 * - `entered`: `{ users, again, awayMs }`
 * - `add`, `leave`: `{ user }`
 * - `chat`: `{ text, from, target, own }`: in the room's order; `own` is the message sent here
 * - `outgoing`: a message of ours whose state has changed
 */
export class Client extends EventTarget {
  /** `base` is the address of the page: the gate answers beside it. */
  constructor(base) {
    super();
    this.base = new URL(base);
    this.name = '';
    this.room = '';
    /** `host:port` of the connector that we are on, or were. */
    this.connector = '';
    this.phase = 'idle';
    this.#resetLife();
  }

  #outbox = new Outbox({ onChange: (message) => this.#emit('outgoing', message) });
  #link = null;
  #abort = null;
  #cancelRetry = () => {};

  /** What we said that has no place in the room yet. */
  get outgoing() {
    return this.#outbox.messages;
  }

  #resetLife() {
    this.attempt = 0;
    this.ghostAttempts = 0;
    this.wasInside = false;
    this.onlineSince = 0;
    this.lostAt = 0;
  }

  /** Enters `room` as `name`. With `again` the name may still be held by an earlier page of ours. */
  join(name, room, { again = false } = {}) {
    this.#stop();
    this.#outbox.reset(name, room);
    this.#resetLife();
    this.name = name;
    this.room = room;
    this.wasInside = again;
    this.#tryNow();
  }

  /** Leaves the room and forgets it. */
  leave() {
    this.#stop();
    this.#outbox.reset();
    this.#setPhase('idle');
  }

  /** Closes the link of a page that is going away; `resume` comes back. */
  suspend() {
    if (this.phase === 'idle' || this.phase === 'ended') return;
    this.#stop();
    if (this.phase === 'online') this.lostAt = Date.now();
    this.#wait(new Refusal('lost'));
  }

  /** Tries at once if the client is waiting; looks at the link if it is not. */
  resume() {
    if (this.phase === 'waiting') this.#tryNow();
    else this.#link?.check();
  }

  /** After `ended`: the same name and room once more. */
  retry() {
    if (this.phase !== 'ended') return;
    this.attempt = 0;
    this.ghostAttempts = 0;
    this.#tryNow();
  }

  /** Sends now, or as soon as there is a connection. Returns the message. */
  send(text, target = EVERYONE) {
    return this.#outbox.send(text, target);
  }

  /** Sends a failed message again. */
  resend(message) {
    this.#outbox.resend(message);
  }

  /** Drops a message that has not been sent. */
  discard(message) {
    this.#outbox.discard(message);
  }

  // ---- getting in

  #stop() {
    this.#cancelRetry();
    this.#abort?.abort();
    this.#abort = null;
    this.#link?.close();
    this.#link = null;
    this.#outbox.close();
  }

  async #tryNow() {
    this.#stop();
    this.#setPhase(this.wasInside ? 'retrying' : 'joining');
    const abort = new AbortController();
    this.#abort = abort;
    try {
      const entry = await this.#askGate(abort.signal);
      const { link, users, start } = await this.#enter(entry, abort.signal);
      if (abort.signal.aborted) return;
      this.connector = `${entry.host}:${entry.port}`;
      this.#inside(link, users, start);
    } catch (error) {
      if (!abort.signal.aborted) this.#failed(error);
    }
  }

  async #askGate(signal) {
    const url = new URL('entry', this.base);
    url.hash = '';
    url.search = new URLSearchParams({ uid: this.name, rid: this.room });
    const patience = new AbortController();
    const cancel = after(GATE_TIMEOUT_MS, () => patience.abort());
    signal.addEventListener('abort', () => patience.abort(), { once: true });
    let answer;
    try {
      const response = await fetch(url, { signal: patience.signal, cache: 'no-store' });
      answer = await response.json();
    } catch {
      throw new Refusal('gate');
    } finally {
      cancel();
    }
    if (answer?.code !== 200 || !answer.host || !answer.port) throw new Refusal('full');
    return { host: String(answer.host), port: Number(answer.port) };
  }

  async #enter(entry, signal) {
    // Pushes may overtake the answer to `enter`; they wait for it.
    const early = [];
    let ready = false;
    let ended = null;
    const link = await Link.open(socketUrl(entry, this.base.protocol), {
      signal,
      onPush: (route, body) => (ready ? this.#push(route, body) : early.push([route, body])),
      onClose: (error) => {
        if (ready) this.#lost(error);
        else ended = error;
      },
    });
    const answer = await link.request(ROUTE_ENTER, { username: this.name, rid: this.room });
    if (signal.aborted) throw new Refusal('closed');
    if (!Array.isArray(answer.users)) {
      link.close();
      throw refusalOfEnter(answer);
    }
    const start = () => {
      ready = true;
      for (const [route, body] of early) this.#push(route, body);
      if (ended) this.#lost(ended);
    };
    return { link, users: answer.users.map(asText), start };
  }

  #inside(link, users, start) {
    this.#link = link;
    const again = this.lostAt > 0;
    const awayMs = again ? Date.now() - this.lostAt : 0;
    this.lostAt = 0;
    this.wasInside = true;
    this.ghostAttempts = 0;
    this.attempt = Math.min(this.attempt, 2);
    this.onlineSince = performance.now();
    this.#setPhase('online');
    this.#emit('entered', { users, again, awayMs });
    start();
    if (this.#link) this.#outbox.open(this.#link);
  }

  #failed(error) {
    const refusal = error instanceof Refusal ? error : refusalOfLink(error);
    if (!(error instanceof Refusal) && !(error instanceof LinkError)) console.error(error);
    this.attempt += 1;
    if (refusal.reason === 'taken' && this.wasInside) {
      this.ghostAttempts += 1;
      if (this.ghostAttempts < GHOST_ATTEMPTS) {
        this.#wait(refusal, GHOST_WAIT_MS * (0.8 + 0.4 * Math.random()));
        return;
      }
    }
    const enough = !this.wasInside && (refusal.reason === 'gate' || this.attempt >= FIRST_ATTEMPTS);
    if (refusal.final || refusal.reason === 'taken' || enough) this.#finish(refusal);
    else this.#wait(refusal);
  }

  #lost(error) {
    this.#link = null;
    this.lostAt ||= Date.now();
    if (performance.now() - this.onlineSince > STABLE_MS) this.attempt = 0;
    this.#outbox.close();
    const refusal = refusalOfLink(error);
    if (refusal.final) this.#finish(refusal);
    else this.#wait(refusal);
  }

  #wait(refusal, delay = retryDelay(this.attempt)) {
    if (globalThis.navigator?.onLine === false) {
      // `resume` is called when the network is back; until then there is nothing to try.
      this.#setPhase('waiting', { reason: 'offline' });
      return;
    }
    this.#cancelRetry = after(delay, () => this.#tryNow());
    const { reason, detail } = refusal;
    const phase = this.wasInside ? 'waiting' : 'joining';
    this.#setPhase(phase, { reason, detail, retryAt: Date.now() + delay });
  }

  #finish({ reason, detail }) {
    this.#stop();
    this.#outbox.giveUp();
    this.#setPhase('ended', { reason, detail });
  }

  // ---- what the room says

  #push(route, body) {
    switch (route) {
      case 'onAdd':
        this.#emit('add', { user: asText(body.user) });
        break;
      case 'onLeave':
        this.#emit('leave', { user: asText(body.user) });
        break;
      case 'onChat':
        this.#heard({ text: asText(body.msg), from: asText(body.from), target: asText(body.target) });
        break;
      case 'onKick':
        break;
      default:
        console.info('ignored a push:', route);
    }
  }

  #heard(chat) {
    // A push without any field: somebody sent what is not text.
    if (!chat.from && !chat.text) return;
    const { own, known } = this.#outbox.heard(chat);
    if (!known) this.#emit('chat', { ...chat, own });
  }

  #setPhase(phase, more = {}) {
    this.phase = phase;
    this.#emit('state', { phase, reason: '', detail: '', retryAt: 0, ...more });
  }

  #emit(type, detail) {
    const event = new Event(type);
    event.detail = detail;
    this.dispatchEvent(event);
  }
}

/** What the original would coerce is shown as text: a user or content that is not a string. */
export function asText(value) {
  if (typeof value === 'string') return value;
  if (value === undefined || value === null) return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function refusalOfEnter(answer) {
  switch (answer.code) {
    case 400:
      return new Refusal('name', { final: true });
    case 401:
    case 403:
      return new Refusal('forbidden', { final: true });
    case 429:
      return new Refusal('busy');
    case 503:
    case 504:
      return new Refusal('full');
    default:
      // 409, and the original's {"code":500,"error":true}.
      return answer.code === 409 || answer.error === true ? new Refusal('taken') : new Refusal('full');
  }
}

function refusalOfLink(error) {
  switch (error.kind) {
    case 'kicked':
      // Meant for this person. A server that goes away closes without a kick.
      return new Refusal('kicked', { final: true, detail: error.reason });
    case 'unreachable':
    case 'timeout':
    case 'refused':
      return new Refusal('connector');
    default:
      return new Refusal('lost');
  }
}
