// A person in a room: asks the gate, opens a link, enters, sends; when the link breaks it does
// all of that again under the same name, until told to leave. Knows nothing of the DOM.

import { Link, LinkError } from './link.js';
import { after } from './timers.js';

const ROUTE_ENTER = 'connector.entryHandler.enter';
const ROUTE_SEND = 'chat.chatHandler.send';
/** The target that means everybody in the room. */
export const EVERYONE = '*';

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
/** How long an accepted message may wait for its own echo, which gives it its place. */
const ECHO_WAIT_MS = 5000;
/** Sends in flight; well under what a connector allows one session. */
const IN_FLIGHT_MAX = 32;

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
    this.outgoing = [];
    this.#resetLife();
  }

  #link = null;
  #abort = null;
  #cancelRetry = () => {};
  #nextKey = 1;

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
    this.outgoing = [];
    this.#resetLife();
    this.name = name;
    this.room = room;
    this.wasInside = again;
    this.#tryNow();
  }

  /** Leaves the room and forgets it. */
  leave() {
    this.#stop();
    this.outgoing = [];
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
    const message = {
      key: this.#nextKey++,
      text,
      target,
      at: Date.now(),
      state: 'waiting', // sending, accepted, delivered, failed
      reason: '',
      placed: false,
    };
    this.outgoing.push(message);
    this.#changed(message);
    this.#flush();
    return message;
  }

  /** Sends a failed message again. */
  resend(message) {
    if (message.state !== 'failed') return;
    message.state = 'waiting';
    message.reason = '';
    message.at = Date.now();
    this.#changed(message);
    this.#flush();
  }

  /** Drops a message that has not been sent. */
  discard(message) {
    if (message.state !== 'failed' && message.state !== 'waiting') return;
    this.outgoing = this.outgoing.filter((other) => other !== message);
    message.state = 'discarded';
    this.#changed(message);
  }

  // ---- getting in

  #stop() {
    this.#cancelRetry();
    this.#abort?.abort();
    this.#abort = null;
    this.#link?.close();
    this.#link = null;
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
    this.#flush();
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
    for (const message of [...this.outgoing]) {
      if (message.state === 'accepted' || message.state === 'delivered') this.#deliver(message);
    }
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
    for (const message of this.outgoing) {
      if (message.state === 'waiting') this.#fail(message, 'disconnected');
    }
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
    const own =
      chat.from === this.name && chat.target === EVERYONE
        ? this.outgoing.find((message) => expectsEcho(message) && message.text === chat.text)
        : undefined;
    if (own) {
      own.echoed = true;
      const placed = own.placed;
      this.#deliver(own);
      if (placed) return;
    }
    this.#emit('chat', { ...chat, own });
  }

  // ---- what we say

  #flush() {
    if (this.phase !== 'online' || !this.#link) return;
    let inFlight = this.outgoing.filter((message) => message.state === 'sending').length;
    for (const message of this.outgoing) {
      if (inFlight >= IN_FLIGHT_MAX) break;
      if (message.state !== 'waiting') continue;
      inFlight += 1;
      this.#transmit(message);
    }
  }

  async #transmit(message) {
    message.state = 'sending';
    this.#changed(message);
    const { text: content, target } = message;
    const body = { rid: this.room, content, from: this.name, target };
    try {
      const answer = await this.#link.request(ROUTE_SEND, body);
      if (answer.code === undefined || answer.code === 200) this.#accepted(message);
      else this.#fail(message, reasonOfSend(answer.code, target));
    } catch {
      // Its echo may have come first: then it is known to have been said.
      if (message.state === 'sending') this.#fail(message, 'unknown');
    }
    this.#flush();
  }

  #accepted(message) {
    if (message.state !== 'sending') return;
    if (message.target !== EVERYONE) {
      // Nobody echoes a whisper to its sender, who draws the line.
      this.#deliver(message);
      return;
    }
    message.state = 'accepted';
    this.#changed(message);
    after(ECHO_WAIT_MS, () => {
      if (message.state === 'accepted') this.#deliver(message);
    });
  }

  #deliver(message) {
    if (!message.placed) {
      message.placed = true;
      message.state = 'delivered';
      this.#changed(message);
    }
    // One that was placed without its echo stays until the echo comes, which then says nothing new.
    const done = message.echoed || message.target !== EVERYONE || !this.#link;
    if (done) this.outgoing = this.outgoing.filter((other) => other !== message);
  }

  #fail(message, reason) {
    message.state = 'failed';
    message.reason = reason;
    this.#changed(message);
  }

  #changed(message) {
    this.#emit('outgoing', message);
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

function expectsEcho(message) {
  return message.target === EVERYONE && ['sending', 'accepted', 'delivered'].includes(message.state);
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

function reasonOfSend(code, target) {
  switch (code) {
    case 404:
      return 'absent';
    case 413:
      return 'long';
    case 429:
      return 'busy';
    case 504:
      return 'unknown';
    case 500:
      return target === EVERYONE ? 'refused' : 'absent';
    default:
      return 'refused';
  }
}
