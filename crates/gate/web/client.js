// A person in a room: asks the gate, opens a link, enters, speaks and listens; when the link breaks
// it does all of that again under the same name, until told to leave. Knows nothing of the DOM.

import { Goodbye, Link, LinkError, MODERN } from './link.js';
import { EVERYONE, Outbox } from './outbox.js';
import { isAfter, positionOf } from './place.js';
import { after } from './timers.js';

const ROUTE_ENTER = 'connector.entryHandler.enter';

const GATE_TIMEOUT_MS = 8000;
/** First wait before a new attempt; it doubles up to the limit. Enough for one lost connector. */
const BACKOFF_FIRST_MS = 400;
const BACKOFF_MAX_MS = 15000;
/** A server may ask for a longer wait, up to this. */
const RETRY_AFTER_MS_MAX = 60000;
/** A link that lived this long starts the waits from the beginning. */
const STABLE_MS = 10000;
/** Attempts to enter while one's own lost connection still holds the name: some 20 s. */
const GHOST_ATTEMPTS = 10;
const GHOST_WAIT_MS = 1500;
/** Attempts of a first join before the person is told. */
const FIRST_ATTEMPTS = 3;

/** Why a modern server closes. For any other reason we may come back, too. */
const CloseCode = Object.freeze({ POLICY: 1008, TOO_LARGE: 1009, ELSEWHERE: 4409 });

/** Milliseconds before attempt `attempt` (0, 1, ...): doubling, and never all clients at once. */
export function retryDelay(attempt, random = Math.random) {
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** attempt);
  return Math.round(ceiling * (0.4 + 0.6 * random()));
}

/** So many milliseconds, and up to a fifth more: a crowd that is told the same does not come at once. */
function jittered(milliseconds) {
  return Math.round(milliseconds * (1 + 0.2 * Math.random()));
}

/** Waits until the connector expects us, or until nobody waits any more. */
function slot(delay, signal) {
  return new Promise((resolve) => {
    const cancel = after(delay, resolve);
    signal.addEventListener('abort', () => { cancel(); resolve(); }, { once: true });
  });
}

/** The WebSocket address of a connector, as seen from a page served over `pageProtocol`. */
export function socketUrl({ host, port }, pageProtocol) {
  const scheme = pageProtocol === 'https:' ? 'wss' : 'ws';
  const name = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
  return `${scheme}://${name}:${port}/`;
}

/** Why a person is not in the room. `reason` is a word that i18n.js has a sentence for. */
class Refusal extends Error {
  constructor(reason, { final = false, detail = '', retryAfterMs = 0 } = {}) {
    super(reason);
    this.reason = reason;
    this.final = final;
    this.detail = detail;
    this.retryAfterMs = Number.isFinite(retryAfterMs) ? Math.min(retryAfterMs, RETRY_AFTER_MS_MAX) : 0;
  }
}

/**
 * Events, each with `detail`:
 * - `state`: `{ phase, reason, detail, retryAt }`, phase one of idle, joining, online, waiting,
 *   retrying, ended
 * - `entered`: `{ users, again, awayMs, outcome, history }`. `outcome` is what a modern server
 *   says: `resumed` (what was missed follows), `joined` or `reset` (something may be missing here);
 *   `history`, with the latter two, is what was said last, as `chat`
 * - `add`, `leave`: `{ user, missed }`
 * - `count`: `{ count }`: so many are here; a large room does not tell who comes and goes
 * - `chat`: `{ text, from, target, own, missed }`: in the room's order; `own` is the message sent
 *   here, `missed` whether it was said while we were away
 * - `gap`: something may be missing here
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

  #outbox = new Outbox({
    onChange: (message) => this.#emit('outgoing', message),
    onOutside: () => {
      this.#link.close();
      this.#lost(new LinkError('closed'));
    },
  });
  /** Where the last thing heard stands, at a modern server. */
  #place = null;
  /** What proves to a modern server who we were. */
  #token = '';
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
    this.#place = null;
    this.#token = '';
  }

  /**
   * Enters `room` as `name`. With `again` the name may still be held by an earlier page of ours;
   * `kept` is what that page had from `keep`. If that page is still there, `elsewhere`, it goes on
   * there, and here not before `retry`.
   */
  join(name, room, { again = false, kept = {}, elsewhere = false } = {}) {
    this.#stop();
    this.#resetLife();
    this.#place = positionOf(kept.place);
    this.#token = this.#place ? asText(kept.token) : '';
    if (this.#place) this.lostAt = Number(kept.at) || Date.now();
    // What was not sent there is for that page to send.
    this.#outbox.reset(name, room, { ...kept.outbox, ...(elsewhere && { messages: [] }) });
    this.name = name;
    this.room = room;
    this.wasInside = again;
    if (elsewhere) this.#finish(new Refusal('elsewhere', { final: true }));
    else this.#tryNow();
  }

  /** Leaves the room and forgets it. */
  leave() {
    this.#stop();
    this.#outbox.reset();
    this.#resetLife();
    this.#setPhase('idle');
  }

  /** What a page that is loaded again needs to go on where this one ends. */
  keep() {
    return { place: this.#place, token: this.#token, outbox: this.#outbox.keep(), at: Date.now() };
  }

  /**
   * Closes the link of a page that is going away, perhaps to be loaded again, unless that page will
   * know nothing of this one: then it is `forGood`. `resume` comes back.
   */
  suspend({ forGood = false } = {}) {
    if (this.phase === 'idle' || this.phase === 'ended') return;
    this.#stop(forGood ? Goodbye.LEAVING : Goodbye.COMING_BACK);
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

  #stop(goodbye = Goodbye.LEAVING) {
    this.#cancelRetry();
    this.#abort?.abort(goodbye);
    this.#abort = null;
    this.#link?.close(goodbye);
    this.#link = null;
    this.#outbox.close();
  }

  async #tryNow() {
    this.#stop(Goodbye.COMING_BACK);
    this.#setPhase(this.wasInside ? 'retrying' : 'joining');
    const abort = new AbortController();
    this.#abort = abort;
    try {
      const entry = await this.#askGate(abort.signal);
      if (entry.afterMs > 0) await slot(jittered(entry.afterMs), abort.signal);
      if (abort.signal.aborted) return;
      const { link, answer, start } = await this.#enter(entry, abort.signal);
      if (abort.signal.aborted) return;
      this.connector = `${entry.host}:${entry.port}`;
      this.#inside(link, answer, start);
    } catch (error) {
      if (!abort.signal.aborted) this.#failed(error);
    }
  }

  async #askGate(signal) {
    const url = new URL('entry', this.base);
    url.hash = '';
    url.search = new URLSearchParams({ uid: this.name, rid: this.room, tangelo: MODERN });
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
    if (answer?.code !== 200 || !answer.host || !answer.port) {
      throw new Refusal('full', { retryAfterMs: answer?.retryAfter });
    }
    const afterMs = Math.min(Number(answer.after) || 0, RETRY_AFTER_MS_MAX);
    return { host: String(answer.host), port: Number(answer.port), afterMs };
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
    const body = { username: this.name, rid: this.room };
    if (link.modern && this.#token) body.resume = { token: this.#token, ...this.#place };
    const answer = await link.request(ROUTE_ENTER, body);
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
    return { link, answer, start };
  }

  #inside(link, answer, start) {
    this.#link = link;
    const again = this.lostAt > 0;
    const awayMs = again ? Date.now() - this.lostAt : 0;
    this.lostAt = 0;
    this.wasInside = true;
    this.ghostAttempts = 0;
    this.attempt = Math.min(this.attempt, 2);
    this.onlineSince = performance.now();
    this.#setPhase('online');
    this.#catchUp(link, answer, { again, awayMs });
    start();
    if (this.#link) this.#outbox.open(this.#link);
  }

  /** Tells what the answer to `enter` says, and what was missed up to it. */
  #catchUp(link, answer, more) {
    const users = answer.users.map(asText);
    const place = link.modern ? positionOf(answer) : null;
    if (!place) {
      this.#place = null;
      this.#token = '';
      this.#emit('entered', { ...more, users, outcome: '', history: [] });
      this.#outbox.settle(null);
      return;
    }
    // A room that stands before our place has begun anew: what it says we have not heard.
    const known = this.#place && !isAfter(this.#place, place) ? this.#place : null;
    const events = (Array.isArray(answer.events) ? answer.events : []).filter((event) => {
      const at = positionOf(event);
      return event && (!known || !at || isAfter(at, known));
    });
    const resumed = answer.outcome === 'resumed';
    // Not resumed though we have a place is a reset, whatever its name.
    const outcome = resumed ? 'resumed' : this.#place ? 'reset' : 'joined';
    const history = resumed ? [] : events.map((event) => this.#newChat(event)).filter(Boolean);
    this.#place = place;
    this.#token = asText(answer.token);
    this.#emit('entered', { ...more, users, outcome, history });
    if (resumed) for (const event of events) this.#say(event.route, event, true);
    this.#outbox.settle(place);
  }

  #failed(error) {
    const refusal = error instanceof Refusal ? error : refusalOfLink(error);
    if (!(error instanceof Refusal) && !(error instanceof LinkError)) console.error(error);
    this.attempt += 1;
    // Whatever was wrong with it: the next attempt is a newcomer's.
    if (refusal.final) this.#token = '';
    if (refusal.reason === 'taken' && this.wasInside) {
      this.ghostAttempts += 1;
      if (this.ghostAttempts < GHOST_ATTEMPTS) {
        this.#wait(refusal, GHOST_WAIT_MS * (0.8 + 0.4 * Math.random()));
        return;
      }
    }
    const enough = !this.wasInside && (refusal.reason === 'gate' || this.attempt >= FIRST_ATTEMPTS);
    if (refusal.final || refusal.reason === 'taken' || enough) this.#finish(refusal);
    else this.#wait(refusal, Math.max(retryDelay(this.attempt), jittered(refusal.retryAfterMs)));
  }

  #lost(error) {
    const modern = this.#link.modern;
    this.#link = null;
    this.lostAt ||= Date.now();
    if (performance.now() - this.onlineSince > STABLE_MS) this.attempt = 0;
    this.#outbox.close();
    const refusal = refusalOfLink(error, modern);
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
    const at = this.#place ? positionOf(body) : null;
    if (at) {
      // The answer to `enter` has told it already.
      if (!isAfter(at, this.#place)) return;
      const broken = at.gen !== this.#place.gen;
      this.#place = at;
      if (broken) this.#emit('gap');
    }
    this.#say(route, body, false);
  }

  #say(route, body, missed) {
    switch (route) {
      case 'onAdd':
        this.#emit('add', { user: asText(body.user), missed });
        break;
      case 'onLeave':
        this.#emit('leave', { user: asText(body.user), missed });
        break;
      case 'onCount':
        if (Number.isSafeInteger(body.count) && body.count >= 0) this.#emit('count', { count: body.count });
        break;
      case 'onChat': {
        const chat = this.#newChat(body);
        if (chat) this.#emit('chat', { ...chat, missed });
        break;
      }
      case 'onKick':
        break;
      default:
        console.info('ignored a push:', route);
    }
  }

  /** What a push says, with the message of ours that it is; `null` if there is nothing to show. */
  #newChat(body) {
    if (body.route !== undefined && body.route !== 'onChat') return null;
    const [text, from, target] = [asText(body.msg), asText(body.from), asText(body.target)];
    // A push without any field: somebody sent what is not text.
    if (!from && !text) return null;
    const id = typeof body.id === 'string' ? body.id : '';
    const { own, known } = this.#outbox.heard({ text, from, target, id });
    return known ? null : { text, from, target, id, own };
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

function refusalOfEnter({ code, error, retryAfter: retryAfterMs }) {
  switch (code) {
    case 400:
    case 413:
      return new Refusal('name', { final: true });
    case 401:
    case 403:
      return new Refusal('forbidden', { final: true });
    case 429:
      return new Refusal('busy', { retryAfterMs });
    case 503:
    case 504:
      return new Refusal('full', { retryAfterMs });
    default:
      // 409, and the original's {"code":500,"error":true}.
      return code === 409 || (code === 500 && error === true) ? new Refusal('taken') : new Refusal('full');
  }
}

function refusalOfLink({ kind, reason, code }, modern = false) {
  const ourFault = code === CloseCode.POLICY || code === CloseCode.TOO_LARGE;
  // Another page of ours has come back in our place; two would chase each other away.
  if (modern && code === CloseCode.ELSEWHERE) return new Refusal('elsewhere', { final: true });
  switch (kind) {
    case 'kicked':
      // Meant for this person. A server that goes away closes without a kick.
      return new Refusal('kicked', { final: true, detail: reason });
    case 'unreachable':
    case 'timeout':
    case 'refused':
      return new Refusal('connector');
    default:
      return modern && ourFault ? new Refusal('kicked', { final: true, detail: reason }) : new Refusal('lost');
  }
}
