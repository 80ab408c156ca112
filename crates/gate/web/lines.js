// How one line of the log looks. Makes nodes; log.js decides where they go.

import { EVERYONE } from './outbox.js';
import { avatar, icon, make, nameNode } from './dom.js';
import { currentLanguage, t, tNodes } from './i18n.js';
import { splitLinks } from './text.js';

/** Past these a text is folded: 8 KiB may be 8,000 lines. */
const FOLD_CHARS = 1400;
const FOLD_LINES = 18;
/** Names told in a note before it counts instead. */
const NAMES_TOLD = 3;
/** Characters of a text that may be all emoji and therefore large. */
const JUMBO_CHARS = 3;

const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\p{Regional_Indicator}|[\u200d\ufe0f])+$/u;

export function timeText(at) {
  return new Intl.DateTimeFormat(currentLanguage(), { hour: '2-digit', minute: '2-digit' }).format(at);
}

function fullTime(at) {
  return new Intl.DateTimeFormat(currentLanguage(), { dateStyle: 'full', timeStyle: 'short' }).format(at);
}

function timeNode(at) {
  return make('time', { datetime: new Date(at).toISOString(), title: fullTime(at) }, timeText(at));
}

/** Text of a person: links become links, everything else stays text. */
export function textNode(text) {
  const body = make('div', { class: 'text', dir: 'auto' });
  for (const part of splitLinks(text)) {
    if (typeof part === 'string') body.append(part);
    else {
      const { href, label } = part;
      body.append(make('a', { href, target: '_blank', rel: 'noopener noreferrer nofollow' }, label));
    }
  }
  if (isJumbo(text)) body.classList.add('jumbo');
  return body;
}

function isJumbo(text) {
  if (text.length > 40 || !EMOJI_ONLY.test(text) || typeof Intl.Segmenter !== 'function') return false;
  return [...new Intl.Segmenter().segment(text)].length <= JUMBO_CHARS;
}

/** The start of a group of messages by one person; bubbles are appended to its `.stack`. */
export function groupNode(line, { self, onWhisper }) {
  const own = line.from === self;
  const whisper = line.target !== EVERYONE;
  const head = make('div', { class: 'head' });
  if (!own) head.append(whoButton(line.from, onWhisper));
  if (whisper) head.append(whisperTag(line, own));
  if (!line.timeless) head.append(timeNode(line.at));
  const stack = make('div', { class: 'stack' }, head);
  const more = `${whisper ? ' whisper' : ''}${line.older ? ' older' : ''}`;
  const group = make('div', { class: `group ${own ? 'own' : 'theirs'}${more}` });
  group.append(...(own ? [] : [avatar(line.from)]), stack);
  return group;
}

function whoButton(name, onWhisper) {
  const label = t('whisper.to', { name });
  const on = { click: () => onWhisper(name) };
  // Not in the tab order, or hundreds would stand before the message field; the member list is.
  const attributes = { class: 'who', type: 'button', title: label, 'aria-label': label, tabindex: '-1', on };
  return make('button', attributes, nameNode(name));
}

function whisperTag(line, own) {
  const sentence = own
    ? tNodes('whisper.tag.out', { name: nameNode(line.target) })
    : tNodes('whisper.tag.in');
  return make('span', { class: 'tag' }, icon('whisper'), make('span', {}, sentence));
}

/** One message. */
export function bubbleNode(line, self) {
  const own = line.from === self;
  const whisper = line.target !== EVERYONE;
  const when = line.timeless ? 'earlier.' : whisper ? 'whisper.' : '';
  const key = `line.${when}${own ? 'own' : 'from'}`;
  const spoken = t(key, { name: own ? line.target : line.from, time: timeText(line.at) });
  const bubble = make(
    'div',
    { class: 'bubble', title: line.timeless ? null : fullTime(line.at) },
    make('span', { class: 'sr' }, `${spoken} `),
    textNode(line.text),
  );
  if (line.text.length > FOLD_CHARS || line.text.split('\n').length > FOLD_LINES) fold(bubble);
  return bubble;
}

function fold(bubble) {
  bubble.classList.add('folded');
  const button = make('button', { class: 'fold', type: 'button', 'aria-expanded': 'false' }, t('chat.more'));
  button.addEventListener('click', () => {
    const folded = bubble.classList.toggle('folded');
    button.textContent = t(folded ? 'chat.more' : 'chat.less');
    button.setAttribute('aria-expanded', String(!folded));
  });
  bubble.append(button);
}

/** A message of ours that is not in the log yet. */
export function outgoingNode(message, { onRetry, onDiscard }) {
  const failed = message.state === 'failed';
  const whisper = message.target !== EVERYONE;
  const state = make('div', { class: 'delivery' });
  if (failed) {
    state.append(
      icon('alert'),
      make('span', {}, tNodes(`failed.${message.reason}`, { name: nameNode(message.target) })),
      make('button', { type: 'button', on: { click: onRetry } }, t('failed.retry')),
      make('button', { type: 'button', on: { click: onDiscard } }, t('failed.discard')),
    );
  } else {
    const words =
      message.state !== 'waiting' ? 'sent.sending' : message.reason ? 'sent.again' : 'sent.waiting';
    state.append(icon('clock'), make('span', {}, t(words)));
  }
  const head = whisper
    ? make('div', { class: 'head' }, whisperTag({ target: message.target }, true))
    : null;
  const bubble = make('div', { class: 'bubble' }, textNode(message.text));
  const stack = make('div', { class: 'stack' }, head, bubble, state);
  const kind = failed ? 'failed' : 'pending';
  return make('div', { class: `group own ${kind}${whisper ? ' whisper' : ''}`, role: failed ? 'alert' : null }, stack);
}

// ---- notes

export function dateNode({ at }) {
  const text = new Intl.DateTimeFormat(currentLanguage(), {
    weekday: 'long',
    day: 'numeric',
    month: 'long',
    year: new Date(at).getFullYear() === new Date().getFullYear() ? undefined : 'numeric',
  }).format(at);
  return make('div', { class: 'rule date' }, make('span', {}, text));
}

export function unreadNode() {
  return make('div', { class: 'rule unread' }, make('span', {}, t('chat.unread')));
}

/** Above what was said before we came. */
export function earlierNode() {
  return make('div', { class: 'rule earlier' }, make('span', {}, t('chat.earlier')));
}

/** Where something may be missing. */
export function gapNode() {
  return make('div', { class: 'rule missing' }, make('span', {}, t('chat.missing')));
}

export function enteredNode({ room, at }) {
  return make('div', { class: 'note' }, tNodes('note.entered', { room: nameNode(`#${room}`) }), ' ', timeNode(at));
}

export function againNode({ awayMs, at }) {
  const away = awayWords(awayMs);
  return make('div', { class: 'note gap' }, tNodes('note.again', { away }), ' ', timeNode(at));
}

export function resumedNode({ awayMs, at }) {
  const away = awayWords(awayMs);
  return make('div', { class: 'note resumed' }, tNodes('note.resumed', { away }), ' ', timeNode(at));
}

function awayWords(awayMs) {
  const seconds = Math.max(1, Math.round(awayMs / 1000));
  return seconds < 90
    ? t('away.seconds', { count: seconds })
    : t('away.minutes', { count: Math.round(seconds / 60) });
}

export function tipNode({ key, places }) {
  return make('div', { class: 'note tip' }, tNodes(key, places));
}

/** Who came and went: in words for a few, in numbers that open for many. */
export function presenceNode({ changes }) {
  const told = { joined: [], back: [], passed: [], left: [] };
  for (const [name, { first, last }] of changes) {
    if (last === 'add') told[first === 'add' ? 'joined' : 'back'].push(name);
    else told[first === 'add' ? 'passed' : 'left'].push(name);
  }
  const kinds = Object.keys(told).filter((kind) => told[kind].length > 0);
  const sentences = (limit) =>
    kinds.map((kind) => tNodes(`note.${kind}`, { names: namesNode(told[kind], limit), count: told[kind].length }));
  if (kinds.every((kind) => told[kind].length <= NAMES_TOLD)) {
    return make('div', { class: 'note' }, ...separated(sentences(Infinity)));
  }
  return make(
    'details',
    { class: 'note' },
    make('summary', {}, ...separated(sentences(NAMES_TOLD))),
    make('div', { class: 'note-all' }, ...separated(sentences(Infinity))),
  );
}

function separated(nodes) {
  return nodes.flatMap((node, index) => (index === 0 ? [node] : [' · ', node]));
}

/** `alice, bob and carol`; past `limit` names only their number. */
function namesNode(names, limit) {
  if (names.length > limit) return t('note.people', { count: names.length });
  const fragment = document.createDocumentFragment();
  const list = new Intl.ListFormat(currentLanguage(), { type: 'conjunction' });
  for (const { type, value } of list.formatToParts(names)) {
    fragment.append(type === 'element' ? nameNode(value) : value);
  }
  return fragment;
}
