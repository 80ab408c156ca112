// The client against a small server in memory: entering, echoes, whispers, broken connections.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { Client } from '../web/client.js';
import { PackageType, decodeJson, decodePackages, encodeJson, encodePackage } from '../web/protocol.js';

const utf8 = new TextEncoder();

/** A room on one connector. `answer(route, body, socket)` may be replaced; `null` stays silent. */
class Server {
  sockets = [];
  entries = 0;
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

let server;

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
        this.emit(PackageType.HANDSHAKE, encodeJson({ code: 200, sys: { heartbeat: 3 } }));
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

  drop() {
    this.readyState = 3;
    this.onclose?.();
  }

  close() {
    this.readyState = 3;
  }
}

/** Stands in for setTimeout; `advance` moves it. Written out, as node's own differs between versions. */
const clock = {
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

beforeEach(() => {
  server = new Server();
  clock.timers.clear();
  globalThis.setTimeout = clock.set;
  globalThis.clearTimeout = (id) => clock.timers.delete(id);
  globalThis.WebSocket = FakeSocket;
  globalThis.fetch = async (url) => {
    server.entries += 1;
    server.asked = url;
    if (!server.up) throw new TypeError('refused');
    return { json: async () => ({ code: 200, host: 'c1', port: 3050 }) };
  };
});

/** Lets everything run that needs no time. */
async function settle() {
  for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
}

/** A client in the room, and a list of all it says. */
async function enter() {
  const client = new Client('http://gate:3014/#lobby');
  const told = [];
  for (const type of ['state', 'entered', 'add', 'leave', 'chat']) {
    client.addEventListener(type, ({ detail }) => told.push({ type, ...detail }));
  }
  client.addEventListener('outgoing', ({ detail }) => told.push({ type: 'outgoing', text: detail.text, state: detail.state }));
  client.join('alice', 'lobby');
  await settle();
  return { client, told, of: (type) => told.filter((one) => one.type === type) };
}

test('asks the gate, opens the connector, enters', async () => {
  const { client, of } = await enter();
  assert.equal(String(server.asked), 'http://gate:3014/entry?uid=alice&rid=lobby');
  assert.equal(server.socket.url, 'ws://c1:3050/');
  assert.equal(client.phase, 'online');
  assert.deepEqual(of('entered')[0].users, ['bob', 'alice']);
  assert.equal(of('entered')[0].again, false);
});

test('a name that is taken ends the first attempt', async () => {
  server.answer = () => ({ code: 500, error: true });
  const { client, of } = await enter();
  assert.equal(client.phase, 'ended');
  assert.equal(of('state').at(-1).reason, 'taken');
  await clock.advance(60000);
  assert.equal(server.entries, 1);
});

test('a push that overtakes the answer to enter is not lost', async () => {
  const normal = server.answer;
  server.answer = (route, body, socket) => {
    if (route.endsWith('enter')) socket.push('onAdd', { user: 'carol' });
    return normal(route, body, socket);
  };
  const { told } = await enter();
  const kinds = told.map(({ type }) => type);
  assert.ok(kinds.indexOf('add') > kinds.indexOf('entered'));
});

test('an own message takes its place when its echo comes', async () => {
  const { client, told } = await enter();
  client.send('hi');
  server.socket.chat('before', 'bob', '*');
  await settle();
  const order = told.filter(({ type }) => type === 'chat').map(({ text }) => text);
  assert.deepEqual(order.sort(), ['before', 'hi']);
  assert.equal(client.outgoing.length, 0);
});

test('the same words twice are two messages', async () => {
  const { client, of } = await enter();
  client.send('same');
  client.send('same');
  await settle();
  assert.equal(of('chat').length, 2);
  assert.equal(client.outgoing.length, 0);
});

test('an echo that is late does not say the message twice', async () => {
  const { client, of, told } = await enter();
  server.answer = () => ({});
  client.send('hi');
  await clock.advance(6000);
  assert.equal(told.at(-1).state, 'delivered');
  server.socket.chat('hi', 'alice', '*');
  await settle();
  assert.equal(of('chat').length, 0);
  assert.equal(client.outgoing.length, 0);
});

test('whispers are delivered by their answer; an absent target fails them', async () => {
  const { client, of } = await enter();
  client.send('psst', 'bob');
  await settle();
  assert.equal(of('outgoing').at(-1).state, 'delivered');
  server.answer = () => ({ code: 500 });
  const message = client.send('psst', 'zoe');
  await settle();
  assert.deepEqual([message.state, message.reason], ['failed', 'absent']);
  client.discard(message);
  assert.equal(client.outgoing.length, 0);
});

test('a lost connection is opened again, and what was written meanwhile is sent', async () => {
  const { client, of } = await enter();
  server.socket.drop();
  assert.equal(client.phase, 'waiting');
  client.send('later');
  await clock.advance(2000);
  assert.equal(client.phase, 'online');
  assert.equal(server.entries, 2);
  assert.equal(of('entered').at(-1).again, true);
  assert.deepEqual(of('chat').map(({ text }) => text), ['later']);
});

test('an unanswered message of a lost connection is not sent twice by itself', async () => {
  const { client } = await enter();
  const normal = server.answer;
  server.answer = () => null;
  const message = client.send('did it arrive?');
  await settle();
  server.answer = normal;
  server.socket.drop();
  await settle();
  assert.deepEqual([message.state, message.reason], ['failed', 'unknown']);
  await clock.advance(3000);
  assert.equal(message.state, 'failed');
  client.resend(message);
  await settle();
  assert.equal(client.outgoing.length, 0);
});

test('an accepted message of a lost connection counts as delivered', async () => {
  const { client, of } = await enter();
  server.answer = () => ({});
  client.send('hi');
  await settle();
  assert.equal(client.outgoing[0].state, 'accepted');
  server.socket.drop();
  assert.equal(of('outgoing').at(-1).state, 'delivered');
  assert.equal(client.outgoing.length, 0);
});

test('the name held by an own ghost is waited for, but not for ever', async () => {
  const { client, of } = await enter();
  const normal = server.answer;
  server.answer = (route, ...rest) => (route.endsWith('enter') ? { code: 500, error: true } : normal(route, ...rest));
  server.socket.drop();
  await clock.advance(8000);
  assert.equal(client.phase, 'waiting');
  assert.equal(of('state').at(-1).reason, 'taken');
  server.answer = normal;
  await clock.advance(2000);
  assert.equal(client.phase, 'online');

  server.answer = (route, ...rest) => (route.endsWith('enter') ? { code: 500, error: true } : normal(route, ...rest));
  server.socket.drop();
  await clock.advance(60000);
  assert.equal(client.phase, 'ended');
  assert.equal(of('state').at(-1).reason, 'taken');
});

test('a kick ends it, until the person comes back', async () => {
  const { client, of } = await enter();
  server.socket.kick('attack');
  await settle();
  assert.equal(client.phase, 'ended');
  assert.deepEqual([of('state').at(-1).reason, of('state').at(-1).detail], ['kicked', 'attack']);
  await clock.advance(60000);
  assert.equal(server.entries, 1);
  client.retry();
  await settle();
  assert.equal(client.phase, 'online');
});

test('an unreachable gate is told at once to a newcomer, and tried again for a member', async () => {
  const { client, of } = await enter();
  server.up = false;
  server.socket.drop();
  await clock.advance(60000);
  assert.equal(client.phase, 'waiting');
  const tries = server.entries;
  assert.ok(tries > 4 && tries < 16, `${tries} attempts in a minute`);
  client.leave();
  client.join('alice', 'lobby');
  await settle();
  assert.equal(client.phase, 'ended');
  assert.equal(of('state').at(-1).reason, 'gate');
});

test('beats, and leaves for good', async () => {
  const { client } = await enter();
  const { socket } = server;
  await clock.advance(9500);
  assert.equal(socket.sent.filter((type) => type === PackageType.HEARTBEAT).length, 3);
  client.leave();
  assert.equal(socket.readyState, 3);
  await clock.advance(60000);
  assert.equal(client.phase, 'idle');
  assert.equal(server.sockets.length, 1);
});

test('strange pushes do no harm', async () => {
  const { client, of } = await enter();
  server.socket.push('onChat', {});
  server.socket.push('onChat', { msg: { a: 1 }, from: 7, target: ['*'] });
  server.socket.push('onSomethingNew', { x: 1 });
  server.socket.emit(9);
  server.socket.emit(PackageType.DATA, Uint8Array.of(6, 200, 1));
  await settle();
  assert.deepEqual(of('chat').map(({ text, from }) => [text, from]), [['{"a":1}', '7']]);
  assert.equal(client.phase, 'online');
});
