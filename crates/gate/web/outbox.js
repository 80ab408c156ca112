// What a person has said until it has its place in the room: sending, echoes, failures. How a
// link comes to be is client.js's.

import { after } from './timers.js';

const ROUTE_SEND = 'chat.chatHandler.send';
/** The target that means everybody in the room. */
export const EVERYONE = '*';

/** How long an accepted message may wait for its own echo, which gives it its place. */
const ECHO_WAIT_MS = 5000;
/** Sends in flight; well under what a connector allows one session. */
const IN_FLIGHT_MAX = 32;

export class Outbox {
  /** In the order in which they were said. */
  messages = [];
  #name = '';
  #room = '';
  #link = null;
  #nextKey = 1;
  #onChange;

  /** `onChange(message)`: its state is another. */
  constructor({ onChange }) {
    this.#onChange = onChange;
  }

  /** Forgets everything, for a person in a room. */
  reset(name = '', room = '') {
    this.#link = null;
    this.messages = [];
    this.#name = name;
    this.#room = room;
  }

  /** The person is in the room over `link`: what waits is sent. */
  open(link) {
    this.#link = link;
    this.#flush();
  }

  /** The link is gone. */
  close() {
    if (!this.#link) return;
    this.#link = null;
    for (const message of [...this.messages]) {
      if (message.state === 'accepted' || message.state === 'delivered') this.#deliver(message);
    }
  }

  /** There will be no link, until the person asks for one. */
  giveUp() {
    for (const message of this.messages) {
      if (message.state === 'waiting') this.#fail(message, 'disconnected');
    }
  }

  /** Sends now, or as soon as there is a link. Returns the message. */
  send(text, target) {
    const message = {
      key: this.#nextKey++,
      text,
      target,
      at: Date.now(),
      state: 'waiting', // sending, accepted, delivered, failed, discarded
      reason: '',
      placed: false,
    };
    this.messages.push(message);
    this.#onChange(message);
    this.#flush();
    return message;
  }

  /** Sends a failed message again. */
  resend(message) {
    if (message.state !== 'failed') return;
    message.state = 'waiting';
    message.reason = '';
    message.at = Date.now();
    this.#onChange(message);
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
  heard({ text, from, target }) {
    if (from !== this.#name || target !== EVERYONE) return { known: false };
    const own = this.messages.find((message) => expectsEcho(message) && message.text === text);
    if (!own) return { known: false };
    own.echoed = true;
    const known = own.placed;
    this.#deliver(own);
    return { own, known };
  }

  #flush() {
    if (!this.#link) return;
    let inFlight = this.messages.filter((message) => message.state === 'sending').length;
    for (const message of this.messages) {
      if (inFlight >= IN_FLIGHT_MAX) break;
      if (message.state !== 'waiting') continue;
      inFlight += 1;
      this.#transmit(message);
    }
  }

  async #transmit(message) {
    message.state = 'sending';
    this.#onChange(message);
    const { text: content, target } = message;
    const body = { rid: this.#room, content, from: this.#name, target };
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
    this.#onChange(message);
    after(ECHO_WAIT_MS, () => {
      if (message.state === 'accepted') this.#deliver(message);
    });
  }

  #deliver(message) {
    if (!message.placed) {
      message.placed = true;
      message.state = 'delivered';
      this.#onChange(message);
    }
    // One that was placed without its echo stays until the echo comes, which then says nothing new.
    if (message.echoed || message.target !== EVERYONE || !this.#link) this.#drop(message);
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

function expectsEcho(message) {
  return message.target === EVERYONE && ['sending', 'accepted', 'delivered'].includes(message.state);
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
