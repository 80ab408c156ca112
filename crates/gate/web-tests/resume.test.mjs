// The client at a server that speaks the modern fields: positions, resuming, ids, words for codes.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { isAfter, positionOf } from '../web/place.js';
import { ModernServer, clock, enter, install, server, settle } from './server.mjs';

const realNow = Date.now;

beforeEach(() => {
  Date.now = realNow;
  install(new ModernServer());
});

/** What was said by whom, in the order shown. */
const said = (of) => of('chat').map(({ from, text }) => `${from}: ${text}`);
const sends = () => server.asked.filter(([verb]) => verb === 'send').map(([, body]) => body);
const enters = () => server.asked.filter(([verb]) => verb === 'enter').map(([, body]) => body);
const back = () => clock.advance(2000);

test('positions', () => {
  assert.deepEqual(positionOf({ gen: 1, seq: 0, x: 2 }), { gen: 1, seq: 0 });
  for (const none of [undefined, null, {}, { gen: 1 }, { gen: 1, seq: -1 }, { gen: '1', seq: 1 }, { gen: 1, seq: 2 ** 53 }]) {
    assert.equal(positionOf(none), null);
  }
  const inOrder = [{ gen: 1, seq: 2 }, { gen: 1, seq: 3 }, { gen: 2, seq: 1 }];
  for (const [at, left] of inOrder.entries()) {
    for (const [other, right] of inOrder.entries()) assert.equal(isAfter(left, right), at > other);
  }
});

test('opts in, and shows what was said before', async () => {
  server.say('bob', 'one');
  server.say('bob', 'for carol', 'carol');
  server.happen({ route: 'onAdd', user: 'bob' });
  server.say('alice', 'two');
  const { client, of } = await enter();
  assert.deepEqual(server.socket.hello.user, { tangelo: 1 });
  assert.deepEqual(enters(), [{ username: 'alice', rid: 'lobby' }]);
  const [{ outcome, again, history }] = of('entered');
  assert.deepEqual([outcome, again], ['joined', false]);
  assert.deepEqual(history.map(({ from, text }) => [from, text]), [['bob', 'one'], ['alice', 'two']]);
  assert.deepEqual(said(of), []);
  assert.deepEqual(client.keep().place, { gen: 7, seq: 4 });
});

test('a push that the answer to enter tells already is not told again', async () => {
  server.instead.enter.push((body, socket) => {
    socket.inside = true;
    const early = server.say('bob', 'early');
    const answer = server.enter(body, socket);
    server.say('bob', 'next');
    assert.equal(early.seq, 1);
    return answer;
  });
  const { of } = await enter();
  assert.deepEqual(of('entered')[0].history.map(({ text }) => text), ['early']);
  assert.deepEqual(said(of), ['bob: next']);
});

test('exactly what was missed is told after a lost connection, once and in order', async () => {
  const { client, of, told } = await enter();
  server.say('bob', 'before');
  await settle();
  server.socket.drop(1006);
  server.say('bob', 'one');
  server.happen({ route: 'onAdd', user: 'carol' });
  server.say('carol', 'for alice', 'alice');
  server.say('carol', 'for bob', 'bob');
  server.happen({ route: 'onLeave', user: 'carol' });
  await back();
  assert.equal(client.phase, 'online');
  assert.deepEqual(enters()[1].resume, { token: 'token of 7', gen: 7, seq: 1 });
  assert.deepEqual([of('entered')[1].outcome, of('entered')[1].again], ['resumed', true]);
  server.say('bob', 'after');
  await settle();
  const events = told.filter(({ type }) => ['chat', 'add', 'leave'].includes(type));
  const words = events.map(({ type, text, user, missed }) => `${type} ${text ?? user} ${missed}`);
  assert.deepEqual(words, [
    'chat before false',
    'chat one true',
    'add carol true',
    'chat for alice true',
    'leave carol true',
    'chat after false',
  ]);
});

test('many breaks in a row lose and double nothing', async () => {
  const { of } = await enter();
  const wanted = [];
  for (let round = 0; round < 30; round += 1) {
    for (const when of ['here', 'away', 'away too']) {
      if (when === 'away') server.socket.drop(1006);
      server.say('bob', `${round} ${when}`);
      wanted.push(`bob: ${round} ${when}`);
      await settle();
    }
    await clock.advance(20000);
  }
  assert.deepEqual(said(of), wanted);
});

test('a reset tells that something may be missing, then what is known, nothing twice', async () => {
  const { client, of } = await enter();
  server.say('bob', 'seen');
  await settle();
  server.socket.drop(1006);
  server.token = 'another';
  server.say('bob', 'unseen');
  await back();
  const { outcome, history } = of('entered')[1];
  assert.equal(outcome, 'reset');
  assert.deepEqual(history.map(({ text }) => text), ['unseen']);
  assert.deepEqual(client.keep().place, { gen: 7, seq: 2 });
});

test('a room that begins anew is heard from its beginning, whatever its number', async () => {
  for (const gen of [9, 7, 3]) {
    const { client, of } = await enter();
    for (let count = 0; count < 5; count += 1) server.say('bob', 'seen');
    await settle();
    server.socket.drop(1012);
    server.begin(gen);
    server.token = 'another';
    server.say('bob', 'first');
    await back();
    assert.equal(of('entered')[1].outcome, 'reset');
    assert.deepEqual(of('entered')[1].history.map(({ text }) => text), ['first']);
    server.say('bob', 'second');
    await settle();
    assert.equal(said(of).at(-1), 'bob: second', `${gen}`);
    client.leave();
    install(new ModernServer());
  }
});

test('a new generation in the middle of things is told as a gap', async () => {
  const { told } = await enter();
  server.begin(8);
  server.say('bob', 'anew');
  await settle();
  assert.deepEqual(told.slice(-2).map(({ type, text }) => [type, text]), [['gap', undefined], ['chat', 'anew']]);
});

test('a message carries an id, and its echo is known by it', async () => {
  const { client, of } = await enter();
  client.send('same');
  client.send('same');
  await settle();
  const [first, second] = sends();
  assert.deepEqual(Object.keys(first), ['content', 'target', 'id']);
  assert.match(first.id, /^[0-9a-f]{24}$/);
  assert.notEqual(first.id, second.id);
  assert.deepEqual(said(of), ['alice: same', 'alice: same']);
  assert.equal(client.outgoing.length, 0);
});

test('an unanswered message is sent again under its id, and said once', async () => {
  for (const arrived of [true, false]) {
    const { client, of } = await enter();
    server.instead.send.push((body, socket) => {
      socket.inside = false;
      if (arrived) server.send(body);
      return null;
    });
    const message = client.send('did it arrive?');
    client.send('and this?');
    await settle();
    server.socket.drop(1006);
    assert.equal(message.state, 'waiting');
    server.say('bob', 'meanwhile');
    await back();
    const ids = sends().filter(({ content }) => content === 'did it arrive?').map(({ id }) => id);
    assert.equal(ids.length, arrived ? 1 : 2, 'an echo among what was missed is an answer');
    assert.equal(new Set(ids).size, 1);
    assert.equal(said(of).filter((line) => line === 'alice: did it arrive?').length, 1);
    assert.equal(said(of).filter((line) => line === 'alice: and this?').length, 1);
    assert.deepEqual([message.state, client.outgoing.length], ['delivered', 0]);
    client.leave();
    install(new ModernServer());
  }
});

test('an accepted message whose echo was lost takes its place among what was missed', async () => {
  const { client, of } = await enter();
  server.instead.send.push((body, socket) => {
    socket.inside = false;
    server.say('bob', 'before');
    return server.send(body);
  });
  const message = client.send('hi');
  await settle();
  assert.equal(message.state, 'accepted');
  server.socket.drop(1006);
  assert.equal(message.state, 'accepted');
  await clock.advance(6000);
  assert.deepEqual(said(of), ['bob: before', 'alice: hi']);
  assert.equal(client.outgoing.length, 0);
});

test('after a reset an accepted message is shown, whether or not the room still tells it', async () => {
  const { client, of } = await enter();
  for (const text of ['told', 'forgotten']) {
    server.instead.send.push((body, socket) => {
      socket.inside = false;
      return server.send(body);
    });
    client.send(text);
  }
  await settle();
  server.socket.drop(1006);
  server.token = 'another';
  server.events = server.events.filter(({ msg }) => msg !== 'forgotten');
  await back();
  assert.deepEqual(of('entered')[1].history.map(({ text }) => text), ['told']);
  assert.deepEqual(of('outgoing').filter(({ state }) => state === 'delivered').map(({ text }) => text), ['told', 'forgotten']);
  assert.equal(client.outgoing.length, 0);
});

test('a whisper is drawn once, even if the room tells it again', async () => {
  const { client, of } = await enter();
  client.send('psst', 'bob');
  await settle();
  assert.equal(of('outgoing').at(-1).state, 'delivered');
  server.socket.drop(1006);
  server.instead.enter.push((body, socket) => {
    const answer = server.enter(body, socket);
    return { ...answer, events: server.events };
  });
  await back();
  assert.deepEqual(said(of), []);
});

test('a message older than ids are remembered is not sent again by itself', async () => {
  const { client } = await enter();
  server.instead.send.push(() => null);
  const message = client.send('hi');
  const { id } = message;
  await settle();
  server.up = false;
  server.socket.drop(1006);
  Date.now = () => realNow() + 5 * 60 * 1000;
  server.up = true;
  await clock.advance(20000);
  assert.deepEqual([message.state, message.reason], ['failed', 'unknown']);
  client.resend(message);
  await settle();
  assert.notEqual(sends().at(-1).id, id, 'the person wants it said, so it is a new one');
  assert.equal(client.outgoing.length, 0);
});

test('what passes by itself is tried again when the server says, under the same id', async () => {
  const { client, of } = await enter();
  server.instead.send.push(() => ({ code: 429, error: true, text: 'too fast', retryAfter: 3000 }));
  server.instead.send.push(() => ({ code: 504, error: true, text: 'unknown' }));
  const message = client.send('hi');
  await settle();
  assert.deepEqual([message.state, message.reason], ['waiting', 'busy']);
  client.send('behind it');
  await clock.advance(2900);
  assert.equal(sends().length, 1);
  await clock.advance(6000);
  const ids = sends().filter(({ content }) => content === 'hi').map(({ id }) => id);
  assert.deepEqual([ids.length, new Set(ids).size], [3, 1]);
  assert.deepEqual(said(of).sort(), ['alice: behind it', 'alice: hi']);
});

test('what does not pass fails in words', async () => {
  const { client } = await enter();
  for (const [code, reason] of [[400, 'refused'], [403, 'forbidden'], [404, 'absent'], [413, 'long']]) {
    server.instead.send.push(() => ({ code, error: true, text: '' }));
    const message = client.send('hi', 'zoe');
    await settle();
    assert.deepEqual([message.state, message.reason], ['failed', reason]);
    client.discard(message);
  }
  server.instead.send.push(...Array(20).fill(() => ({ code: 503, error: true, text: '', retryAfter: 10 })));
  const message = client.send('hi');
  await clock.advance(60000);
  assert.deepEqual([message.state, message.reason], ['failed', 'busy']);
});

test('a session that is in no room enters again', async () => {
  const { client, of } = await enter();
  server.instead.send.push(() => ({ code: 401, error: true, text: 'enter a room first' }));
  client.send('hi');
  await settle();
  assert.equal(client.phase, 'waiting');
  await back();
  assert.deepEqual(said(of), ['alice: hi']);
  assert.equal(new Set(sends().map(({ id }) => id)).size, 1);
});

test('refusals to enter, in words and at the pace that is asked for', async () => {
  server.instead.enter.push(() => ({ code: 409, error: true, text: 'taken' }));
  const { client, of } = await enter();
  assert.deepEqual([client.phase, of('state').at(-1).reason], ['ended', 'taken']);
  for (const [code, reason] of [[400, 'name'], [403, 'forbidden'], [413, 'name']]) {
    server.instead.enter.push(() => ({ code, error: true, text: '' }));
    client.retry();
    await settle();
    assert.deepEqual([client.phase, of('state').at(-1).reason], ['ended', reason]);
  }
  server.instead.enter.push(() => ({ code: 429, error: true, text: '', retryAfter: 9000 }));
  client.retry();
  await settle();
  const asked = enters().length;
  assert.deepEqual([client.phase, of('state').at(-1).reason], ['joining', 'busy']);
  await clock.advance(8900);
  assert.equal(enters().length, asked);
  await clock.advance(3000);
  assert.equal(client.phase, 'online');
});

test('why the server closes decides whether to come back', async () => {
  for (const code of [1001, 1006, 1011, 1012, 1013]) {
    const { client, of } = await enter();
    server.socket.drop(code);
    await back();
    assert.deepEqual([client.phase, of('entered').at(-1).outcome], ['online', 'resumed'], `${code}`);
    client.leave();
  }
  for (const code of [1008, 1009]) {
    const { client } = await enter();
    server.socket.drop(code);
    await clock.advance(60000);
    assert.equal(client.phase, 'ended', `${code}`);
    client.retry();
    await settle();
    assert.equal(client.phase, 'online');
    client.leave();
  }
});

test('two pages with one membership do not chase each other away', async () => {
  const { client, of } = await enter();
  server.socket.drop(4409);
  await clock.advance(60000);
  assert.deepEqual([client.phase, of('state').at(-1).reason], ['ended', 'elsewhere']);
  assert.equal(server.sockets.length, 1);
  client.retry();
  await settle();
  assert.deepEqual([client.phase, of('entered').at(-1).outcome], ['online', 'resumed']);
});

test('a page that is loaded again goes on where it was, and sends what was not answered', async () => {
  const first = await enter();
  server.say('bob', 'seen');
  await settle();
  server.instead.send.push((body, socket) => {
    socket.inside = false;
    server.send(body);
    return null;
  });
  server.instead.send.push(() => null);
  first.client.send('arrived');
  first.client.send('did not');
  await settle();
  const kept = JSON.parse(JSON.stringify(first.client.keep()));
  first.client.suspend();
  server.say('bob', 'missed');
  const { client, of } = await enter({ again: true, kept });
  assert.deepEqual([of('entered')[0].outcome, of('entered')[0].again], ['resumed', true]);
  assert.deepEqual(said(of), ['alice: arrived', 'bob: missed', 'alice: did not']);
  assert.equal(client.outgoing.length, 0);
});

test('the server is told who leaves, and who comes back', async () => {
  const ways = [
    [1000, (client) => client.leave()],
    [4001, (client) => client.suspend()],
    [1000, (client) => client.suspend({ forGood: true })],
  ];
  for (const [code, go] of ways) {
    const { client } = await enter();
    go(client);
    assert.equal(server.socket.closedWith, code);
    client.leave();
  }
  // Before it is in, too.
  server.instead.enter.push(() => null);
  const { client } = await enter();
  client.suspend();
  assert.equal(server.socket.closedWith, 4001);
  client.leave();
});

test('a copy of a page that is still there waits to be asked', async () => {
  const first = await enter();
  server.instead.send.push(() => null);
  first.client.send('on its way');
  server.say('bob', 'seen');
  await settle();
  const kept = JSON.parse(JSON.stringify(first.client.keep()));
  server.say('bob', 'after');
  const { client, of } = await enter({ again: true, kept, elsewhere: true });
  assert.deepEqual([client.phase, of('state').at(-1).reason], ['ended', 'elsewhere']);
  assert.deepEqual([server.sockets.length, client.outgoing.length], [1, 0]);
  client.retry();
  await settle();
  assert.deepEqual([client.phase, of('entered')[0].outcome, of('entered')[0].again], ['online', 'resumed', true]);
  assert.deepEqual(said(of), ['bob: after']);
});

test('what failed is still there after the page was loaded again, and is not sent by itself', async () => {
  const first = await enter();
  server.instead.send.push(() => ({ code: 404, error: true, text: '' }));
  first.client.send('hi', 'zoe');
  await settle();
  const kept = JSON.parse(JSON.stringify(first.client.keep()));
  first.client.suspend();
  const { client } = await enter({ again: true, kept });
  const [{ text, state, reason }] = client.outgoing;
  assert.deepEqual([text, state, reason, sends().length], ['hi', 'failed', 'absent', 1]);
});

test('how many are in a large room is told, and stands at no place', async () => {
  const { client, of } = await enter();
  server.say('bob', 'one');
  server.socket.push('onCount', { count: 1001 });
  server.say('bob', 'two');
  for (const count of ['1', -1, 1.5, null]) server.socket.push('onCount', { count });
  await settle();
  assert.deepEqual(of('count').map(({ count }) => count), [1001]);
  assert.deepEqual(said(of), ['bob: one', 'bob: two']);
  assert.deepEqual(client.keep().place, { gen: 7, seq: 2 });
});

test('leaving forgets the place', async () => {
  const { client, of } = await enter();
  client.leave();
  client.join('alice', 'lobby');
  await settle();
  assert.equal(enters()[1].resume, undefined);
  assert.equal(of('entered')[1].outcome, 'joined');
});

test('a server that does not know the fields any more is taken as it is', async () => {
  const { client, of } = await enter();
  server.instead.send.push(() => null);
  const message = client.send('hi');
  await settle();
  server.socket.drop(1006);
  server.user = undefined;
  server.instead.enter.push(() => ({ users: ['bob', 'alice'] }));
  await back();
  assert.equal(enters()[1].resume, undefined);
  assert.equal(of('entered')[1].outcome, '');
  assert.deepEqual([message.state, message.reason], ['failed', 'unknown']);
});

test('strange fields do no harm', async () => {
  server.instead.enter.push((body, socket) => {
    const answer = server.enter(body, socket);
    return { ...answer, token: 7, events: [null, 1, {}, { route: 'onChat', msg: { a: 1 }, from: 7, gen: 'x' }] };
  });
  const { client, of } = await enter();
  assert.equal(client.phase, 'online');
  assert.deepEqual(of('entered')[0].history.map(({ from, text }) => [from, text]), [['7', '{"a":1}']]);
  server.socket.push('onChat', { msg: 'no place', from: 'bob', target: '*' });
  await settle();
  assert.deepEqual(said(of), ['bob: no place']);
});
