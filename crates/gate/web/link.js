// One connection to a connector: handshake, heartbeat, requests and their answers, pushes.
// It lives once; client.js opens the next one.

import { Codec, PackageType, decodeJson, decodePackages, encodeJson, encodePackage } from './protocol.js';
import { after } from './timers.js';

const OPEN_TIMEOUT_MS = 8000;
const REQUEST_TIMEOUT_MS = 20000;
/** Added to two heartbeat intervals before a silent server counts as gone. */
const SILENCE_SLACK_MS = 1000;

/** The generation of modern fields that this page speaks. */
export const MODERN = 1;
const HANDSHAKE = { sys: { type: 'tangelo-page', version: '0.1.0' }, user: { tangelo: MODERN } };

/** With which code we close a connection: for good, or to open another, so that nobody hears of it. */
export const Goodbye = Object.freeze({ LEAVING: 1000, COMING_BACK: 4001 });

/** The connection ended, or never came to be. */
export class LinkError extends Error {
  /**
   * `kind`: unreachable, refused, timeout, silent, kicked, closed. `reason`: the server's text.
   * `code`: of the WebSocket's close, 0 if there was none.
   */
  constructor(kind, reason = '', code = 0) {
    super(reason ? `${kind}: ${reason}` : kind);
    this.kind = kind;
    this.reason = reason;
    this.code = code;
  }
}

export class Link {
  /** Whether the server speaks the modern fields (docs/protocol.md). */
  modern = false;
  #socket;
  #codec = null;
  #answers = new Map();
  #nextId = 1;
  #opened;
  #heartbeatMs = 0;
  #heardAt = performance.now();
  #cancelOpen;
  #cancelBeat = () => {};
  #cancelWatch = () => {};
  #over = false;
  #onPush;
  #onClose;

  /**
   * Resolves with a link that has shaken hands. `signal` is aborted with a `Goodbye`.
   * `onPush(route, body)` is called for each push, `onClose(LinkError)` once when it ends later.
   */
  static open(url, { onPush, onClose, signal }) {
    return new Promise((resolve, reject) => {
      new Link(url, { onPush, onClose, signal, opened: { resolve, reject } });
    });
  }

  constructor(url, { onPush, onClose, signal, opened }) {
    this.#onPush = onPush;
    this.#onClose = onClose;
    this.#opened = opened;
    this.#cancelOpen = after(OPEN_TIMEOUT_MS, () => this.#end(new LinkError('timeout')));
    signal?.addEventListener('abort', () => this.close(signal.reason), { once: true });
    try {
      this.#socket = new WebSocket(url);
    } catch (error) {
      this.#end(new LinkError('unreachable', error.message));
      return;
    }
    this.#socket.binaryType = 'arraybuffer';
    this.#socket.onopen = () => this.#transmit(PackageType.HANDSHAKE, encodeJson(HANDSHAKE));
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onclose = (event) => {
      const kind = this.#opened ? 'unreachable' : 'closed';
      this.#end(new LinkError(kind, event?.reason ?? '', event?.code ?? 0));
    };
  }

  /** Asks; resolves with the answer's body, rejects with a LinkError. */
  request(route, body) {
    return new Promise((resolve, reject) => {
      if (this.#over || !this.#codec) {
        reject(new LinkError('closed'));
        return;
      }
      const id = this.#nextId++;
      const cancelTimeout = after(REQUEST_TIMEOUT_MS, () => {
        this.#answers.delete(id);
        reject(new LinkError('timeout'));
      });
      this.#answers.set(id, { resolve, reject, cancelTimeout });
      this.#transmit(PackageType.DATA, this.#codec.encodeRequest(id, route, body));
    });
  }

  /**
   * Ends the connection; nothing is called back for it but requests still open. `goodbye` says
   * whether the room is to take it for leaving.
   */
  close(goodbye = Goodbye.LEAVING) {
    this.#onClose = () => {};
    this.#end(new LinkError('closed'), goodbye);
  }

  /** Ends the connection if the server has been silent for too long: after a sleep, say. */
  check() {
    if (this.#over || !this.#heartbeatMs) return;
    const silence = performance.now() - this.#heardAt;
    if (silence > 2 * this.#heartbeatMs + SILENCE_SLACK_MS) this.#end(new LinkError('silent'));
  }

  #transmit(type, body) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(encodePackage(type, body));
  }

  #receive(data) {
    if (this.#over) return;
    this.#heardAt = performance.now();
    try {
      const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data);
      for (const { type, body } of decodePackages(bytes)) this.#handle(type, body);
    } catch (error) {
      // One strange message is not worth the connection.
      console.warn('ignored a message:', error);
    }
  }

  #handle(type, body) {
    switch (type) {
      case PackageType.HANDSHAKE:
        this.#shakeHands(decodeJson(body));
        break;
      case PackageType.HEARTBEAT:
        this.#beatLater();
        break;
      case PackageType.DATA:
        if (this.#codec) this.#deliver(this.#codec.decode(body));
        break;
      case PackageType.KICK:
        this.#end(new LinkError('kicked', String(decodeJson(body)?.reason ?? '')));
        break;
      default:
        console.warn('ignored a package of type', type);
    }
  }

  #shakeHands(answer) {
    if (this.#codec) return;
    if (answer?.code !== 200) {
      this.#end(new LinkError('refused', String(answer?.code ?? '')));
      return;
    }
    this.#codec = new Codec(answer.sys);
    this.modern = answer.user?.tangelo === MODERN;
    this.#heartbeatMs = Math.max(0, Number(answer.sys?.heartbeat) || 0) * 1000;
    this.#transmit(PackageType.ACK);
    this.#cancelOpen();
    this.#watch();
    const { resolve } = this.#opened;
    this.#opened = null;
    resolve(this);
  }

  #deliver({ id, route, body }) {
    if (route !== undefined) {
      this.#onPush(route, body ?? {});
      return;
    }
    const answer = this.#answers.get(id);
    if (!answer) return;
    this.#answers.delete(id);
    answer.cancelTimeout();
    answer.resolve(body ?? {});
  }

  #beatLater() {
    if (!this.#heartbeatMs) return;
    this.#cancelBeat();
    this.#cancelBeat = after(this.#heartbeatMs, () => this.#transmit(PackageType.HEARTBEAT));
  }

  #watch() {
    if (!this.#heartbeatMs) return;
    const due = performance.now() + this.#heartbeatMs;
    this.#cancelWatch = after(this.#heartbeatMs, () => {
      // A late timer means that this page was held back, and what the server sent may still
      // wait behind it: look again next time.
      const late = performance.now() - due > SILENCE_SLACK_MS;
      if (!late) this.check();
      if (!this.#over) this.#watch();
    });
  }

  #end(error, goodbye = Goodbye.COMING_BACK) {
    if (this.#over) return;
    this.#over = true;
    this.#cancelOpen();
    this.#cancelBeat();
    this.#cancelWatch();
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close(goodbye);
    }
    for (const { reject, cancelTimeout } of this.#answers.values()) {
      cancelTimeout();
      reject(error);
    }
    this.#answers.clear();
    if (this.#opened) this.#opened.reject(error);
    else this.#onClose(error);
  }
}
