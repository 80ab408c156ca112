// A connector and a gate in memory, and a clock that only moves when told to.

import { PackageType, decodeJson, decodePackages, encodeJson, encodePackage } from '../web/protocol.js';
import { Client } from '../web/client.js';

const utf8 = new TextEncoder();

/** A room on one connector. `answer(route, body, socket)` may be replaced; `null` stays silent. */
export class Server {
  sockets = [];
  entries = 0;
  /** What the gate answers instead, once each. */
  entry = [];
  up = true;
  answer = (route, body, socket) => {
    if (route.endsWith('enter')) return { users: ['bob', body.username] };
    if (body.target === '*') queueMicrotask(() => socket.chat(body.content, 'alice', '*'));
    return {};
  };

  get socket() {
    return this.sockets.at(-1);
  }
}

/** A server that speaks the modern fields, with one room that alice may enter. */
export class ModernServer extends Server {
  user = { tangelo: 1 };
  gen = 7;
  token = 'none yet';
  events = [];
  /** Everything asked, as `[route's last word, body]`. */
  asked = [];
  /** Answers instead of the room, once each, by route's last word; a function, which may give null. */
  instead = { enter: [], send: [] };
  #ids = new Map();
  #seq = 0;

  answer = (route, body, socket) => {
    const verb = route.split('.').at(-1);
    this.asked.push([verb, body]);
    const instead = this.instead[verb].shift();
    if (instead) return instead(body, socket);
    return verb === 'enter' ? this.enter(body, socket) : this.send(body);
  };

  enter({ resume }, socket) {
    socket.inside = true;
    const { gen } = this;
    const known = resume?.token === this.token && resume.gen === gen;
    const chats = this.events.filter(({ route, target }) => route === 'onChat' && target === '*');
    const missed = this.events.filter((event) => event.seq > resume?.seq && this.#isOurs(event));
    const outcome = known ? 'resumed' : resume ? 'reset' : 'joined';
    const events = known ? missed : chats.slice(-50);
    this.token = `token of ${gen}`;
    return { code: 200, outcome, users: ['bob', 'alice'], gen, seq: this.#seq, token: this.token, events };
  }

  send({ content, target, id }) {
    if (!this.#ids.has(id)) this.#ids.set(id, this.say('alice', content, target, { id }));
    return { code: 200, ...this.#ids.get(id) };
  }

  /** Somebody says something; alice hears it if she is here. */
  say(from, msg, target = '*', more = {}) {
    return this.happen({ route: 'onChat', msg, from, target, ...more });
  }

  happen(event) {
    this.#seq += 1;
    const place = { gen: this.gen, seq: this.#seq };
    this.events.push({ ...event, ...place });
    const { socket } = this;
    if (socket?.inside && socket.readyState === 1 && this.#isOurs(event)) {
      socket.push(event.route, { ...event, ...place });
    }
    return place;
  }

  /** Continuity is lost. */
  begin(gen) {
    this.gen = gen;
    this.#seq = 0;
    this.events = [];
  }

  #isOurs({ target }) {
    return target === undefined || target === '*' || target === 'alice';
  }
}

export let server;

class FakeSocket {
  static OPEN = 1;
  readyState = 0;

  constructor(url) {
    this.url = url;
    this.sent = [];
    server.sockets.push(this);
    queueMicrotask(() => {
      if (!server.up) return this.drop();
      this.readyState = 1;
      this.onopen?.();
    });
  }

  send(bytes) {
    for (const { type, body } of decodePackages(bytes)) {
      this.sent.push(type);
      if (type === PackageType.HANDSHAKE) {
        this.hello = decodeJson(body);
        this.emit(PackageType.HANDSHAKE, encodeJson({ code: 200, sys: { heartbeat: 3 }, user: server.user }));
      } else if (type === PackageType.ACK || type === PackageType.HEARTBEAT) {
        this.emit(PackageType.HEARTBEAT);
      } else if (type === PackageType.DATA) {
        this.#request(body);
      }
    }
  }

  #request(body) {
    const id = body[1];
    const routeEnd = 3 + body[2];
    const route = new TextDecoder().decode(body.subarray(3, routeEnd));
    const answer = server.answer(route, decodeJson(body.subarray(routeEnd)), this);
    if (answer) this.emit(PackageType.DATA, Uint8Array.of(4, id, ...encodeJson(answer)));
  }

  emit(type, body) {
    const bytes = encodePackage(type, body);
    queueMicrotask(() => this.onmessage?.({ data: bytes.buffer }));
  }

  push(route, body) {
    this.emit(PackageType.DATA, Uint8Array.of(6, route.length, ...utf8.encode(route), ...encodeJson(body)));
  }

  chat(msg, from, target) {
    this.push('onChat', { msg, from, target });
  }

  kick(reason) {
    this.emit(PackageType.KICK, encodeJson({ reason }));
  }

  drop(code) {
    this.readyState = 3;
    this.onclose?.(code && { code, reason: '' });
  }

  close(code) {
    this.closedWith ??= code;
    this.readyState = 3;
  }
}

/** Stands in for setTimeout; `advance` moves it. Written out, as node's own differs between versions. */
export const clock = {
  now: 0,
  timers: new Map(),
  set(action, delay = 0, ...parameters) {
    const id = clock.timers.size + Math.random();
    clock.timers.set(id, { due: clock.now + delay, run: () => action(...parameters) });
    return id;
  },
  async advance(milliseconds) {
    await settle();
    const end = clock.now + milliseconds;
    for (;;) {
      const [next] = [...clock.timers].filter(([, { due }]) => due <= end).sort((a, b) => a[1].due - b[1].due);
      if (!next) break;
      const [id, { due, run }] = next;
      clock.timers.delete(id);
      clock.now = due;
      run();
      await settle();
    }
    clock.now = end;
  },
};

/** Puts `replacement` where the client finds a gate, sockets and a clock. */
export function install(replacement = new Server()) {
  server = replacement;
  clock.timers.clear();
  globalThis.setTimeout = clock.set;
  globalThis.clearTimeout = (id) => clock.timers.delete(id);
  globalThis.WebSocket = FakeSocket;
  globalThis.fetch = async (url) => {
    server.entries += 1;
    server.askedGate = url;
    if (!server.up) throw new TypeError('refused');
    const answer = server.entry.shift() ?? { code: 200, host: 'c1', port: 3050, after: 0 };
    return { json: async () => answer };
  };
}

/** Lets everything run that needs no time. */
export async function settle() {
  for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
}

/** A client in the room, and a list of all it says. */
export async function enter(options) {
  const client = new Client('http://gate:3014/#lobby');
  const told = [];
  for (const type of ['state', 'entered', 'add', 'leave', 'count', 'chat', 'gap']) {
    client.addEventListener(type, ({ detail }) => told.push({ type, ...detail }));
  }
  client.addEventListener('outgoing', ({ detail }) => told.push({ type: 'outgoing', text: detail.text, state: detail.state }));
  client.join('alice', 'lobby', options);
  await settle();
  return { client, told, of: (type) => told.filter((one) => one.type === type) };
}
