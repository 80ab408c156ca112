// Names, sizes, links and commands, and the words of both languages.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { asText, retryDelay, socketUrl } from '../web/client.js';
import { words } from '../web/i18n.js';
import { byteLength, checkName, cleanName, cleanText, hueOf, parseWhisper, splitLinks } from '../web/text.js';

test('names as the server takes them', () => {
  for (const good of ['alice', '张三', 'émile', 'room_1', 'room-1', '12345678901234567890', 'Ωmega', '٣']) {
    assert.equal(checkName(cleanName(good)), null, good);
  }
  assert.equal(checkName(cleanName('e\u0301mile')), null, 'composed first');
  assert.deepEqual(checkName(''), { reason: 'empty' });
  assert.deepEqual(checkName(cleanName('  ')), { reason: 'empty' });
  assert.deepEqual(checkName('a b'), { reason: 'space' });
  assert.deepEqual(checkName('a*b'), { reason: 'letter', letter: '*' });
  assert.deepEqual(checkName('🍊'), { reason: 'letter', letter: '🍊' });
  assert.deepEqual(checkName('123456789012345678901'), { reason: 'long' });
});

test('links', () => {
  const links = (text) => splitLinks(text).filter((part) => typeof part === 'object').map(({ label }) => label);
  const whole = (text) => splitLinks(text).map((part) => part.label ?? part).join('');
  const cases = {
    'see https://a.example/x?y=1#z.': ['https://a.example/x?y=1#z'],
    '(https://a.example/x_(y))': ['https://a.example/x_(y)'],
    '[https://a.example/x].': ['https://a.example/x'],
    'HTTP://A.example, http://b.example!': ['HTTP://A.example', 'http://b.example'],
    '看https://a.example/x，好': ['https://a.example/x'],
    '看https://a.example/x这里': ['https://a.example/x'],
    'javascript:alert(1) data:text/html,x ftp://a.example': [],
    'http://user:pass@evil.example/': [],
    'https:// and http://': [],
    'www.a.example/x, 看www.b.example。 (WWW.c.example)': ['www.a.example/x', 'www.b.example', 'WWW.c.example'],
    'awww.a.example x@www.a.example https://www.a.example/www.b www.a www. www': ['https://www.a.example/www.b'],
    '<https://a.example/>"https://b.example"': ['https://a.example/', 'https://b.example'],
  };
  for (const [text, expected] of Object.entries(cases)) {
    assert.deepEqual(links(text), expected, text);
    assert.equal(whole(text), text);
  }
  for (const part of splitLinks('http://a.example https://b.example')) {
    if (part.href) assert.match(part.href, /^https?:\/\//);
  }
});

test('text is cleaned and measured in bytes', () => {
  assert.equal(cleanText('\n \n  two\n lines \n\n'), '  two\n lines');
  assert.equal(cleanText('half \ud83c!'), 'half \ufffd!');
  assert.equal(cleanText('whole 🍊'), 'whole 🍊');
  assert.equal(byteLength('a你🍊'), 8);
});

test('whisper commands', () => {
  assert.deepEqual(parseWhisper('/w bob hi  there'), { name: 'bob', text: 'hi  there' });
  assert.deepEqual(parseWhisper('/W @bob\nhi'), { name: 'bob', text: 'hi' });
  assert.deepEqual(parseWhisper('/w bob'), { name: 'bob', text: '' });
  assert.deepEqual(parseWhisper('/w'), { name: '', text: '' });
  assert.equal(parseWhisper('/wbob hi'), null);
  assert.equal(parseWhisper('not /w bob'), null);
});

test('a name keeps its colour', () => {
  assert.equal(hueOf('alice', 10), hueOf('alice', 10));
  assert.ok(new Set(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => hueOf(name, 10))).size > 2);
});

test('content that is no string is shown as text', () => {
  assert.deepEqual([7, true, null, undefined, 'x', { a: 1 }, [1]].map(asText), ['7', 'true', '', '', 'x', '{"a":1}', '[1]']);
});

test('waits double, are bounded, and are never all the same', () => {
  assert.equal(retryDelay(0, () => 1), 400);
  assert.equal(retryDelay(3, () => 1), 3200);
  assert.equal(retryDelay(50, () => 1), 15000);
  assert.equal(retryDelay(50, () => 0), 6000);
});

test('addresses of connectors', () => {
  assert.equal(socketUrl({ host: '127.0.0.1', port: 3050 }, 'http:'), 'ws://127.0.0.1:3050/');
  assert.equal(socketUrl({ host: '::1', port: 3050 }, 'https:'), 'wss://[::1]:3050/');
  assert.equal(socketUrl({ host: '[::1]', port: 1 }, 'http:'), 'ws://[::1]:1/');
});

test('both languages say the same things', () => {
  assert.deepEqual(Object.keys(words['zh-CN']), Object.keys(words.en));
  const places = (entry) => {
    const forms = typeof entry === 'string' ? [entry] : [entry.other];
    return [...new Set(forms.join(' ').match(/\{\w+\}/g) ?? [])].sort();
  };
  for (const key of Object.keys(words.en)) {
    assert.deepEqual(places(words['zh-CN'][key]), places(words.en[key]), key);
  }
});
