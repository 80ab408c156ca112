// What must hold of the page's files without running them: its policy allows no inline script or
// style and no foreign address, and what one file names exists in another.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { words } from '../web/i18n.js';

const WEB = fileURLToPath(new URL('../web/', import.meta.url));
const files = readdirSync(WEB);
const read = (name) => readFileSync(WEB + name, 'utf8');
const html = read('index.html');
const scripts = files.filter((name) => name.endsWith('.js'));

test('text of people can only ever be text', () => {
  const markup = /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|createContextualFragment|\beval\b|new Function/;
  for (const name of scripts) assert.doesNotMatch(read(name), markup, name);
});

test('nothing inline, nothing from elsewhere', () => {
  assert.doesNotMatch(html, /\sstyle=|<style|\son\w+=|javascript:/i);
  for (const [tag] of html.matchAll(/<script[^>]*>/g)) assert.match(tag, /src="/);
  for (const name of files) {
    const outside = (read(name).match(/(?:src|href|url\(|import|from|fetch)\s*[=('"]*\s*['"(]?(?:https?:)?\/\/[^\s'")]+/g) ?? []);
    assert.deepEqual(outside, [], name);
  }
});

test('files that are named exist', () => {
  const named = [
    ...[...html.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, name]) => name),
    ...[...read('style.css').matchAll(/url\('([^']+)'\)/g)].map(([, name]) => name),
    ...scripts.flatMap((name) => [...read(name).matchAll(/from '\.\/([^']+)'/g)].map(([, other]) => other)),
  ];
  assert.ok(named.length > 15);
  for (const name of named) assert.ok(existsSync(WEB + name), name);
});

test('elements that are named exist, once', () => {
  const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
  assert.equal(new Set(ids).size, ids.length);
  for (const name of scripts) {
    for (const [, id] of read(name).matchAll(/byId\('([^']+)'\)/g)) assert.ok(ids.includes(id), `${name}: ${id}`);
    for (const [, id] of read(name).matchAll(/icon\('([^']+)'\)/g)) assert.ok(ids.includes(`i-${id}`), `${name}: ${id}`);
  }
  for (const [, list] of html.matchAll(/(?:for|aria-controls|aria-labelledby|aria-describedby)="([^"]+)"/g)) {
    for (const id of list.split(' ')) assert.ok(ids.includes(id), id);
  }
});

test('words that are named exist', () => {
  const used = [
    ...[...html.matchAll(/data-t(?:-\w+)?="([^"]+)"/g)].map(([, key]) => key),
    ...scripts.flatMap((name) => [...read(name).matchAll(/\bt(?:Nodes)?\('([^']+)'/g)].map(([, key]) => key)),
  ];
  for (const key of used) assert.ok(key in words.en, key);
});
