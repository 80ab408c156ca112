// The page's codec against bytes recorded from the original server and its own page.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  Codec,
  PackageType,
  ProtocolError,
  decodeJson,
  decodePackages,
  encodeJson,
  encodePackage,
} from '../web/protocol.js';

const bytes = (hex) => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const hex = (data) => Buffer.from(data).toString('hex');
const text = (string) => Buffer.from(string).toString('hex');

// From ws-handshake-full: the connector's whole answer.
const DICT = {
  'chat.chatHandler.send': 1,
  'connector.entryHandler.enter': 2,
  'gate.gateHandler.queryEntry': 3,
};
const SYS = {
  heartbeat: 3,
  dict: DICT,
  routeToCode: DICT,
  codeToRoute: Object.fromEntries(Object.entries(DICT).map(([route, code]) => [code, route])),
  dictVersion: 's2r1qfKDrbhWCkA6uf+PTA==',
  useDict: true,
  protos: {
    server: {
      onChat: {
        msg: { option: 'required', type: 'string', tag: 1 },
        from: { option: 'required', type: 'string', tag: 2 },
        target: { option: 'required', type: 'string', tag: 3 },
        __messages: {},
        __tags: { 1: 'msg', 2: 'from', 3: 'target' },
      },
    },
    client: {},
    version: '2zWPnSlRsRxjqgcU215Uxg==',
  },
  useProto: true,
};
const codec = new Codec(SYS);

function onlyPackage(recorded) {
  const packages = decodePackages(bytes(recorded));
  assert.equal(packages.length, 1);
  return packages[0];
}

test('packages without a body', () => {
  assert.equal(hex(encodePackage(PackageType.ACK)), '02000000');
  assert.equal(hex(encodePackage(PackageType.HEARTBEAT)), '03000000');
  assert.deepEqual(onlyPackage('03000000').type, PackageType.HEARTBEAT);
});

test('the handshake the original page sends', () => {
  const body = encodeJson({ sys: { type: 'js-websocket', version: '0.0.1', rsa: {}, protoVersion: 0 } });
  assert.equal(
    hex(encodePackage(PackageType.HANDSHAKE, body)),
    '0100004b7b22737973223a7b2274797065223a226a732d776562736f636b6574222c2276657273696f6e223a22302e302e31222c22727361223a7b7d2c2270726f746f56657273696f6e223a307d7d',
  );
});

test('enter with a compressed route, and its answer', () => {
  const request = codec.encodeRequest(1, 'connector.entryHandler.enter', { username: 'alice', rid: 'r14' });
  assert.equal(
    hex(encodePackage(PackageType.DATA, request)),
    '04000024010100027b22757365726e616d65223a22616c696365222c22726964223a22723134227d',
  );
  const answer = onlyPackage('0400001504017b227573657273223a5b22616c696365225d7d');
  assert.deepEqual(codec.decode(answer.body), { id: 1, body: { users: ['alice'] } });
});

test('a plain route where there is no dictionary', () => {
  const request = new Codec({}).encodeRequest(1, 'gate.gateHandler.queryEntry', { uid: 'alice' });
  assert.equal(
    hex(encodePackage(PackageType.DATA, request)),
    '0400002d00011b676174652e6761746548616e646c65722e7175657279456e7472797b22756964223a22616c696365227d',
  );
});

test('the pushes', () => {
  const add = onlyPackage(`04000025 0605 ${text('onAdd')} ${text('{"route":"onAdd","user":"bob"}')}`);
  assert.deepEqual(codec.decode(add.body), { route: 'onAdd', body: { route: 'onAdd', user: 'bob' } });
  const chat = onlyPackage(`04000016 0606 ${text('onChat')} 0a02 ${text('hi')} 1205 ${text('alice')} 1a01 2a`);
  assert.deepEqual(codec.decode(chat.body), {
    route: 'onChat',
    body: { msg: 'hi', from: 'alice', target: '*' },
  });
});

test('a push whose content was no string has an empty body', () => {
  const chat = bytes(`0606 ${text('onChat')}`);
  assert.deepEqual(codec.decode(chat), { route: 'onChat', body: {} });
});

test('a push with a compressed route, should a server announce one', () => {
  const other = new Codec({ routeToCode: { onAdd: 300 } });
  assert.equal(other.decode(bytes(`07012c ${text('{"user":"bob"}')}`)).route, 'onAdd');
  assert.throws(() => other.decode(bytes('07012d7b7d')), ProtocolError);
});

test('a kick', () => {
  const { type, body } = onlyPackage(`05000013 ${text('{"reason":"attack"}')}`);
  assert.equal(type, PackageType.KICK);
  assert.deepEqual(decodeJson(body), { reason: 'attack' });
});

test('characters beyond the BMP travel as real UTF-8', () => {
  const request = codec.encodeRequest(2, 'chat.chatHandler.send', { content: '🍊' });
  assert.ok(hex(request).includes('f09f8d8a'));
  const push = bytes(`0606 ${text('onChat')} 0a04 f09f8d8a 1201 61 1a01 2a`);
  assert.equal(codec.decode(push).body.msg, '🍊');
});

test('text that is not UTF-8 costs nothing but itself', () => {
  const push = bytes(`0606 ${text('onChat')} 0a03 eda081 1201 61 1a01 2a`);
  assert.equal(codec.decode(push).body.msg, '\ufffd\ufffd\ufffd');
});

test('ids of every length come back', () => {
  for (const id of [1, 127, 128, 16383, 16384, 2 ** 31 - 1, 2 ** 31, 2 ** 40]) {
    const request = codec.encodeRequest(id, 'chat.chatHandler.send', {});
    // A response has the same id in the same place.
    const response = Uint8Array.from([4, ...request.slice(1, request.length - 4), 0x7b, 0x7d]);
    assert.equal(codec.decode(response).id, id);
  }
});

test('several packages in one WebSocket message', () => {
  const both = decodePackages(bytes('03000000 05000002 7b7d'));
  assert.deepEqual(both.map(({ type }) => type), [3, 5]);
});

test('what is cut short is an error, never a hang', () => {
  for (const broken of ['03', '030000', '0400000504', '04ffffff00']) {
    assert.throws(() => decodePackages(bytes(broken)), ProtocolError, broken);
  }
  for (const broken of ['', '04', '0480', `0606${text('onCh')}`, `0606${text('onChat')}0a05`]) {
    assert.throws(() => codec.decode(bytes(broken)), ProtocolError, broken);
  }
  assert.throws(() => codec.decode(bytes(`0606${text('onChat')}2201 61`)), ProtocolError, 'unknown tag');
  assert.throws(() => codec.decode(bytes('0480808080808080808080')), ProtocolError, 'endless number');
});

test('a body that is no JSON is undefined', () => {
  assert.deepEqual(codec.decode(bytes('0401ff')), { id: 1, body: undefined });
});

test('protobuf in both directions, with every type', () => {
  const definition = {
    a: { option: 'optional', type: 'uInt32', tag: 1 },
    b: { option: 'optional', type: 'int32', tag: 2 },
    c: { option: 'optional', type: 'sInt32', tag: 3 },
    d: { option: 'optional', type: 'float', tag: 4 },
    e: { option: 'optional', type: 'double', tag: 5 },
    f: { option: 'required', type: 'string', tag: 6 },
    g: { option: 'repeated', type: 'uInt32', tag: 7 },
    h: { option: 'repeated', type: 'string', tag: 8 },
    i: { option: 'optional', type: 'Inner', tag: 20 },
    j: { option: 'repeated', type: 'Inner', tag: 21 },
    __messages: {
      Inner: { x: { option: 'required', type: 'uInt32', tag: 1 }, __messages: {} },
    },
  };
  const both = new Codec({ protos: { client: { 'a.b.c': definition }, server: { push: definition }, version: 'v' } });
  const value = {
    a: 4294967295,
    b: -3,
    c: 2147483647,
    d: 0.5,
    e: -1.25,
    f: '你好',
    g: [1, 300],
    h: ['x', ''],
    i: { x: 7 },
    j: [{ x: 1 }, { x: 2 }],
  };
  const request = both.encodeRequest(1, 'a.b.c', value);
  const body = request.slice(3 + 'a.b.c'.length);
  assert.ok(hex(body).startsWith('08ffffffff0f1005'), 'uInt32 is plain, int32 is zigzag');
  const push = Uint8Array.from([6, 4, ...Buffer.from('push'), ...body]);
  assert.deepEqual(both.decode(push).body, value);
  assert.throws(() => both.encodeRequest(1, 'a.b.c', {}), ProtocolError, 'required');
});
