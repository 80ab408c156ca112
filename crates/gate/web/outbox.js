// What a person has said until it has its place in the room: sending, echoes, retries, failures.
// How a link comes to be is client.js's.

import { isAfter, positionOf } from './place.js';
import { after } from './timers.js';

const ROUTE_SEND = 'chat.chatHandler.send';
/** The target that means everybody in the room. */
export const EVERYONE = '*';

/** How long an accepted message may wait for its own echo, which gives it its place. */
const ECHO_WAIT_MS = 5000;
/** Sends in flight; well under what a connector allows one session. */
const IN_FLIGHT_MAX = 32;
/** How long after its first sending a message is sent again by itself. A server knows its id for 5 min. */
const RETRY_MS_MAX = 4 * 60 * 1000;
/** Refusals that pass by themselves, before the person is told. */
const REFUSALS_MAX = 6;
/** The wait after such a refusal if it names none; it doubles. */
const REFUSED_WAIT_MS = 500;
const REFUSED_WAIT_MS_MAX = 8000;
/** Own ids remembered, so that nothing said here is shown twice. */
const IDS_MAX = 200;
/** The states of messages whose story is not over. */
const OPEN = new Set(['waiting', 'sending', 'accepted', 'failed']);
/** Undone by itself in time. */
const PASSING = new Map([
  [429, 'busy'],
  [503, 'busy'],
  [504, 'unknown'],
]);

export class Outbox {
  /** In the order in which they were said. */
  messages = [];
  #name = '';
  #room = '';
  #link = null;
  #nextKey = 1;
  #shown = new Set();
  #cancelPause = null;
  #onChange;
  #onOutside;

  /**
   * `onChange(message)`: its state is another. `onOutside()`: the server says that we are in no
   * room, though the link is up.
   */
  constructor({ onChange, onOutside = () => {} }) {
    this.#onChange = onChange;
    this.#onOutside = onOutside;
  }

  /** Forgets everything, for a person in a room. `kept` is from `keep`, of an earlier page. */
  reset(name = '', room = '', kept = {}) {
    this.#unpause();
    this.#link = null;
    this.messages = [];
    this.#name = name;
    this.#room = room;
    this.#shown = new Set(kept.shown ?? []);
    for (const message of kept.messages ?? []) this.#add(message);
  }

  /**
   * What a page that is loaded again needs, to send what was not answered, and nothing twice; and to
   * show again what has failed.
   */
  keep() {
    const open = this.messages.filter(({ state }) => OPEN.has(state));
    return {
      shown: [...this.#shown],
      messages: open.map(({ id, text, target, at, firstSentAt, state, reason }) => {
        const failed = state === 'failed' ? { state, reason } : {};
        return { id, text, target, at, firstSentAt, ...failed };
      }),
    };
  }

  /** The person is in the room over `link`: what waits is sent, and what was not answered again. */
  open(link) {
    this.#link = link;
    for (const message of [...this.messages]) {
      const { state, firstSentAt } = message;
      if (state !== 'waiting' || !firstSentAt) continue;
      // Without ids, or once they are forgotten, it could be said twice.
      if (!link.modern || Date.now() - firstSentAt > RETRY_MS_MAX) this.#fail(message, 'unknown');
    }
    this.#flush();
  }

  /** The link is gone. */
  close() {
    const link = this.#link;
    if (!link) return;
    this.#link = null;
    this.#unpause();
    for (const message of [...this.messages]) {
      if (link.modern && message.state === 'sending') this.#wait(message);
      // Its echo comes when we are back; an old server has none for those who were away.
      else if (link.modern && message.state === 'accepted') continue;
      else if (message.state === 'accepted' || message.state === 'delivered') this.#deliver(message);
    }
  }

  /** What is known up to `place` was heard: an accepted message before it has no echo any more. */
  settle(place) {
    for (const message of [...this.messages]) {
      if (message.state !== 'accepted') continue;
      if (!place || !message.place || !isAfter(message.place, place)) this.#deliver(message);
    }
  }

  /** There will be no link, until the person asks for one. */
  giveUp() {
    for (const message of [...this.messages]) {
      if (message.state === 'waiting') this.#fail(message, message.firstSentAt ? 'unknown' : 'disconnected');
      else if (message.state === 'accepted') this.#deliver(message);
    }
  }

  /** Sends now, or as soon as there is a link. Returns the message. */
  send(text, target) {
    const message = this.#add({ text, target });
    this.#flush();
    return message;
  }

  /** Sends a failed message again. */
  resend(message) {
    if (message.state !== 'failed') return;
    // Under its old id while that says for sure whether it has arrived.
    const known = message.firstSentAt && Date.now() - message.firstSentAt < RETRY_MS_MAX;
    if (message.reason !== 'unknown' || !known) {
      message.id = newId();
      message.firstSentAt = 0;
    }
    message.at = Date.now();
    message.refusals = 0;
    this.#wait(message);
    this.#flush();
  }

  /** Drops a message that has not been sent. */
  discard(message) {
    if (message.state !== 'failed' && message.state !== 'waiting') return;
    this.#drop(message);
    message.state = 'discarded';
    this.#onChange(message);
  }

  /**
   * The room has said something. Returns `{ own, known }`: the message of ours that it is, and
   * whether that was shown already.
   */
  heard(chat) {
    if (chat.from !== this.#name) return { known: false };
    const own = this.messages.find((message) => isEcho(chat, message));
    if (!own) {
      const known = Boolean(chat.id) && this.#shown.has(chat.id);
      if (chat.id) this.#remember(chat.id);
      return { known };
    }
    own.echoed = true;
    const known = own.placed;
    this.#deliver(own);
    return { own, known };
  }

  #add({ id = newId(), text, target, at = Date.now(), firstSentAt = 0, state = 'waiting', reason = '' }) {
    const message = {
      key: this.#nextKey++,
      /** Names it to a modern server, which takes it once. */
      id,
      text,
      target,
      at,
      /** 0 until it was sent for the first time under this id, to a server that knows ids. */
      firstSentAt,
      state, // waiting, sending, accepted, delivered, failed, discarded
      reason,
      refusals: 0,
      placed: false,
    };
    this.messages.push(message);
    this.#onChange(message);
    return message;
  }

  #flush() {
    if (!this.#link || this.#cancelPause) return;
    let inFlight = this.messages.filter((message) => message.state === 'sending').length;
    for (const message of this.messages) {
      if (inFlight >= IN_FLIGHT_MAX) break;
      if (message.state !== 'waiting') continue;
      inFlight += 1;
      this.#transmit(message, this.#link);
    }
  }

  async #transmit(message, link) {
    message.state = 'sending';
    message.reason = '';
    if (link.modern) message.firstSentAt ||= Date.now();
    this.#onChange(message);
    const { text: content, target, id } = message;
    const modern = { content, target, id };
    const old = { rid: this.#room, content, from: this.#name, target };
    let answer;
    try {
      answer = await link.request(ROUTE_SEND, link.modern ? modern : old);
    } catch {
      // No answer, and if the link is modern one may still be had.
      answer = { code: 504 };
    }
    // Its echo may have come first: then it is known to have been said. Or another link has it now.
    const over = message.state !== 'sending' || (link.modern && link !== this.#link);
    if (!over) this.#answered(message, answer, link);
    this.#flush();
  }

  #answered(message, answer, link) {
    if (answer.code === undefined || answer.code === 200) this.#accepted(message, positionOf(answer));
    else if (link.modern) this.#refused(message, answer);
    else this.#fail(message, reasonOfSend(answer.code, message.target));
  }

  #accepted(message, place) {
    message.place = place;
    if (message.target !== EVERYONE) {
      // Nobody echoes a whisper to its sender, who draws the line.
      this.#deliver(message);
      return;
    }
    message.state = 'accepted';
    this.#onChange(message);
    after(ECHO_WAIT_MS, () => {
      if (message.state === 'accepted' && this.#link) this.#deliver(message);
    });
  }

  #refused(message, { code, retryAfter }) {
    message.refusals += 1;
    if ((code !== 401 && !PASSING.has(code)) || message.refusals > REFUSALS_MAX) {
      this.#fail(message, reasonOfSend(code, message.target));
      return;
    }
    this.#wait(message, PASSING.get(code));
    if (code === 401) {
      this.#onOutside();
      return;
    }
    const wait = Math.min(REFUSED_WAIT_MS_MAX, REFUSED_WAIT_MS * 2 ** (message.refusals - 1));
    this.#pause(Number.isFinite(retryAfter) ? Math.max(0, retryAfter) : wait);
  }

  /** Sends nothing for a while. All wait together, or they would overtake each other. */
  #pause(delay) {
    this.#unpause();
    this.#cancelPause = after(delay * (1 + 0.2 * Math.random()), () => {
      this.#cancelPause = null;
      this.#flush();
    });
  }

  #unpause() {
    this.#cancelPause?.();
    this.#cancelPause = null;
  }

  #wait(message, reason = '') {
    message.state = 'waiting';
    message.reason = reason;
    this.#onChange(message);
  }

  #deliver(message) {
    if (!message.placed) {
      message.placed = true;
      message.state = 'delivered';
      this.#remember(message.id);
      this.#onChange(message);
    }
    // One that was placed without its echo stays until the echo comes, which then says nothing new.
    if (message.echoed || message.target !== EVERYONE || !this.#link) this.#drop(message);
  }

  #remember(id) {
    this.#shown.add(id);
    if (this.#shown.size > IDS_MAX) this.#shown.delete(this.#shown.values().next().value);
  }

  #drop(message) {
    this.messages = this.messages.filter((other) => other !== message);
  }

  #fail(message, reason) {
    message.state = 'failed';
    message.reason = reason;
    this.#onChange(message);
  }
}

/** 96 random bits: no other message has them. `randomUUID` needs a page served over TLS. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function isEcho(chat, message) {
  if (chat.id) return chat.id === message.id;
  if (chat.target !== EVERYONE || chat.text !== message.text || message.target !== EVERYONE) return false;
  return ['sending', 'accepted', 'delivered'].includes(message.state);
}

function reasonOfSend(code, target) {
  switch (code) {
    case 403:
      return 'forbidden';
    case 404:
      return 'absent';
    case 413:
      return 'long';
    case 429:
    case 503:
      return 'busy';
    case 504:
      return 'unknown';
    case 500:
      return target === EVERYONE ? 'refused' : 'absent';
    default:
      return 'refused';
  }
}
