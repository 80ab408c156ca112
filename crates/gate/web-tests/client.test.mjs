// The client against a small server in memory: entering, echoes, whispers, broken connections.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { PackageType } from '../web/protocol.js';
import { clock, enter, install, server, settle } from './server.mjs';

beforeEach(() => install());

test('asks the gate, opens the connector, enters', async () => {
  const { client, of } = await enter();
  assert.equal(String(server.askedGate), 'http://gate:3014/entry?uid=alice&rid=lobby&tangelo=1');
  assert.equal(server.socket.url, 'ws://c1:3050/');
  assert.equal(client.phase, 'online');
  assert.deepEqual(of('entered')[0].users, ['bob', 'alice']);
  assert.equal(of('entered')[0].again, false);
});

test('comes when the gate says, and not much later', async () => {
  server.entry.push({ code: 200, host: 'c1', port: 3050, after: 2000 });
  const { client } = await enter();
  await clock.advance(1999);
  assert.equal(server.sockets.length, 0);
  await clock.advance(402);
  assert.equal(client.phase, 'online');
});

test('asks a gate again that has no slot, when it says', async () => {
  server.entry.push({ code: 503, error: true, text: 'x', retryAfter: 5000 });
  const { client } = await enter();
  await clock.advance(4999);
  assert.equal(server.entries, 1);
  await clock.advance(1002);
  assert.equal(client.phase, 'online');
});

test('who leaves while waiting for its slot does not come', async () => {
  server.entry.push({ code: 200, host: 'c1', port: 3050, after: 2000 });
  const { client } = await enter();
  client.leave();
  await clock.advance(5000);
  assert.equal(server.sockets.length, 0);
  assert.equal(client.phase, 'idle');
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
