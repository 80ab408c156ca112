// What may be a name, how large a text is, and where its links are. Pure.

export const NAME_CHARS_MAX = 20;
export const TEXT_BYTES_MAX = 8 * 1024;

const NAME_LETTER = /[\p{Alphabetic}\p{N}_-]/u;
const encoder = new TextEncoder();

/** A name as typed, in the one form that everybody's keyboard agrees on. */
export function cleanName(typed) {
  return typed.normalize('NFC').trim();
}

/** `null` if `name` may be used, else what is wrong: `{ reason, letter }`. */
export function checkName(name) {
  const letters = [...name];
  if (letters.length === 0) return { reason: 'empty' };
  const letter = letters.find((candidate) => !NAME_LETTER.test(candidate));
  if (letter !== undefined) return /\s/u.test(letter) ? { reason: 'space' } : { reason: 'letter', letter };
  if (letters.length > NAME_CHARS_MAX) return { reason: 'long' };
  return null;
}

/** A message as typed, without blank lines around it and without halves of characters. */
export function cleanText(typed) {
  const text = typed.replace(/^(?:[^\S\n]*\n)+/u, '').trimEnd();
  // A lone surrogate is no character, and no UTF-8.
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
}

/** Bytes of UTF-8, which is how the server measures. */
export function byteLength(text) {
  return encoder.encode(text).length;
}

/** The first character as a reader sees it, for the picture of a name. */
export function initial(name) {
  if (typeof Intl.Segmenter === 'function') {
    const [first] = new Intl.Segmenter().segment(name);
    return (first?.segment ?? '?').toLocaleUpperCase();
  }
  return ([...name][0] ?? '?').toLocaleUpperCase();
}

/** One of `count` colours, always the same for a name. */
export function hueOf(name, count) {
  let hash = 0x811c9dc5;
  for (const byte of encoder.encode(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash % count;
}

// Stops at white space, quotes, angle brackets, and at Chinese and Japanese letters and
// punctuation, which commonly follow an address without a space.
// A bare www. begins one too, but not inside a word or a mail address.
const ADDRESS =
  /(?:https?:\/\/|(?<![a-z0-9@._/-])www\.(?=[^\s./]+\.[^\s.]))[^\s<>"'`\u3000-\u303f\uff00-\uffef\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\u2018-\u201f\u2026]+/giu;
const TRAILING = /[.,;:!?*_~)\]}]/u;
const OPENING = { ')': '(', ']': '[', '}': '{' };

/** `text` cut into plain strings and `{ href, label }` for http and https addresses. */
export function splitLinks(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const label = trimAddress(match[0]);
    const href = httpAddress(/^www\./i.test(label) ? `https://${label}` : label);
    if (!href) continue;
    if (match.index > at) parts.push(text.slice(at, match.index));
    parts.push({ href, label });
    at = match.index + label.length;
  }
  if (at < text.length) parts.push(text.slice(at));
  return parts;
}

/** A full stop or a closing bracket after an address belongs to the sentence around it. */
function trimAddress(address) {
  const surplus = {};
  for (const [closing, opening] of Object.entries(OPENING)) {
    surplus[closing] = count(address, closing) - count(address, opening);
  }
  let end = address.length;
  while (TRAILING.test(address[end - 1] ?? '')) {
    const last = address[end - 1];
    // A bracket that was opened inside the address is part of it.
    if (last in OPENING && surplus[last] <= 0) break;
    surplus[last] -= 1;
    end -= 1;
  }
  return address.slice(0, end);
}

function count(text, letter) {
  return text.split(letter).length - 1;
}

function httpAddress(label) {
  try {
    const url = new URL(label);
    const known = url.protocol === 'http:' || url.protocol === 'https:';
    // user@host can dress up as another host.
    return known && url.hostname && !url.username && !url.password ? url.href : null;
  } catch {
    return null;
  }
}

/** `/w name text` as typed: `{ name, text }`, or `null` if it is no whisper command. */
export function parseWhisper(typed) {
  const match = /^\/(?:w|whisper|msg)(?:\s+(\S+)(?:\s+([\s\S]*))?)?\s*$/iu.exec(typed);
  if (!match) return null;
  return { name: cleanName((match[1] ?? '').replace(/^@/, '')), text: cleanText(match[2] ?? '') };
}
