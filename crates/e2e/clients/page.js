#!/usr/bin/env node
// Plays two users of the chat with the scripts of an original page, in Node without a browser.
//
//   node page.js GATE_PORT SCRIPT...      the page's library scripts, in its order; WebSocket only
//
// Takes Node 22, or 20 with --experimental-websocket. Exits 0 if all was as it should be.
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const vm = require('node:vm');

const [port, ...scripts] = process.argv.slice(2);
const ROOM = `node${process.pid}`;

// A page of its own, as far as the scripts look at one.
function open() {
  const kept = {};
  const page = {
    console: { ...console, log() {} }, WebSocket, setTimeout, clearTimeout, setInterval, clearInterval,
    location: { protocol: 'http:', hostname: '127.0.0.1', port: '3001' },
    navigator: { userAgent: 'node' },
    document: { domain: '127.0.0.1', readyState: 'complete', getElementsByTagName: () => [] },
    localStorage: { getItem: (key) => kept[key] ?? null, setItem(key, text) { kept[key] = text; } },
    addEventListener() {},
    ArrayBuffer, Uint8Array, Uint16Array,
  };
  page.window = page.self = page.global = page;
  vm.createContext(page);
  for (const script of scripts) vm.runInContext(fs.readFileSync(script, 'utf8'), page, script);
  // The page of chatofpomelo-websocket has its libraries as components, and asks for them.
  if (page.require) vm.runInContext("require('boot')", page);
  return page.pomelo;
}

const connect = (pomelo, host, number) =>
  new Promise((resolve) => pomelo.init({ host, port: number, log: false }, resolve));
const ask = (pomelo, route, body) =>
  new Promise((resolve) => pomelo.request(route, body, (answer) => resolve({ ...answer })));

async function enter(name) {
  const pomelo = open();
  await connect(pomelo, '127.0.0.1', port);
  const entry = await ask(pomelo, 'gate.gateHandler.queryEntry', { uid: name });
  pomelo.disconnect();
  await connect(pomelo, entry.host, entry.port);
  const told = [];
  pomelo.on('onChat', (push) => told.push(`${push.from}>${push.target} ${push.msg}`));
  pomelo.on('onAdd', (push) => told.push(`+${push.user}`));
  pomelo.on('onLeave', (push) => told.push(`-${push.user}`));
  const answer = await ask(pomelo, 'connector.entryHandler.enter', { username: name, rid: ROOM });
  const say = (content, target) =>
    ask(pomelo, 'chat.chatHandler.send', { rid: ROOM, from: name, content, target });
  return { pomelo, told, answer, say };
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

async function main() {
  const alice = await enter('alice');
  assert.deepEqual([...alice.answer.users], ['alice']);
  const bob = await enter('鲍勃');
  assert.deepEqual([...bob.answer.users], ['alice', '鲍勃']);
  const double = await enter('alice');
  assert.equal(double.answer.code, 500);
  await alice.say('你好 😀', '*');
  await bob.say('psst', 'alice');
  assert.equal((await bob.say('psst', 'nobody')).code, 500);
  await pause(0.5);
  assert.deepEqual(bob.told, ['alice>* 你好 😀']);
  bob.pomelo.disconnect();
  // Long enough for heartbeats of the binary protocol.
  await pause(8);
  await alice.say('still here', '*');
  await pause(0.5);
  assert.deepEqual(alice.told, ['+鲍勃', 'alice>* 你好 😀', '鲍勃>alice psst', '-鲍勃', 'alice>* still here']);
  console.log('ok ', alice.told.join(' | '));
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
