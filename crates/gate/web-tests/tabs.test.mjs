// Tabs of one browser ask each other who is in a room.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Tabs } from '../web/tabs.js';

test('a copy learns that the first is still there, and only then', async () => {
  const first = new Tabs((name, room) => name === 'alice' && room === 'lobby');
  const other = new Tabs(() => false);
  const copy = new Tabs(() => false);
  const answers = [['alice', 'lobby'], ['alice', 'hall'], ['bob', 'lobby']].map((place) => copy.isElsewhere(...place));
  assert.deepEqual(await Promise.all(answers), [true, false, false]);
  first.close();
  assert.equal(await copy.isElsewhere('alice', 'lobby'), false);
  other.close();
  copy.close();
});

test('a tab does not answer itself, and strange words do no harm', async () => {
  const tabs = new Tabs(() => true);
  const stranger = new BroadcastChannel('tangelo.rooms');
  for (const words of [null, 7, 'x', {}, { answers: 'x' }, { asks: {} }]) stranger.postMessage(words);
  assert.equal(await tabs.isElsewhere('alice', 'lobby'), false);
  stranger.close();
  tabs.close();
});

test('without such channels nobody is elsewhere', async () => {
  const { BroadcastChannel } = globalThis;
  delete globalThis.BroadcastChannel;
  assert.equal(await new Tabs(() => true).isElsewhere('alice', 'lobby'), false);
  globalThis.BroadcastChannel = BroadcastChannel;
});
