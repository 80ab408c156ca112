// The message list: order, groups, its place while somebody reads further up, and its bound.

import { soon } from './dom.js';
import { t } from './i18n.js';
import {
  againNode,
  bubbleNode,
  dateNode,
  earlierNode,
  enteredNode,
  gapNode,
  groupNode,
  outgoingNode,
  presenceNode,
  resumedNode,
  tipNode,
  unreadNode,
} from './lines.js';

/** Lines kept; the oldest go first. */
const LINES_MAX = 2000;
/** What a page that is loaded again gets back, in lines and in characters of text. */
const KEPT_LINES_MAX = 200;
const KEPT_CHARS_MAX = 200_000;
/** About what somebody who came or went takes of these. */
const CHANGE_CHARS = 60;
/** Marks of days are made anew, and what was unread is not any more. */
const KEPT = new Set(['chat', 'earlier', 'gap', 'entered', 'again', 'resumed', 'presence']);
/** A pause that starts a new group of the same person. */
const GROUP_PAUSE_MS = 5 * 60 * 1000;
/** Joins and leaves this close together share one note. */
const PRESENCE_PAUSE_MS = 10 * 60 * 1000;
/** This near to the end counts as at the end. */
const END_SLACK_PX = 80;

const NOTES = {
  date: dateNode,
  unread: unreadNode,
  earlier: earlierNode,
  gap: gapNode,
  entered: enteredNode,
  again: againNode,
  resumed: resumedNode,
  presence: presenceNode,
  tip: tipNode,
};

export class MessageLog {
  #lines = [];
  #fresh = [];
  #stale = new Set();
  #drawing = false;
  #atEnd = true;
  #top = 0;
  #unseen = 0;
  #self = '';
  #view;
  #actions;
  #sent = new Map();

  /**
   * `view`: elements scroller, lines, outbox, jump, jumpText.
   * `actions`: onWhisper(name), onRetry(message), onDiscard(message).
   */
  constructor(view, actions) {
    this.#view = view;
    this.#actions = actions;
    view.scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    view.jump.addEventListener('click', () => this.toEnd({ smooth: true }));
    // The keyboard of a phone and a growing draft both take height away.
    const observer = new ResizeObserver(() => this.#atEnd && this.#toEndNow());
    observer.observe(view.scroller);
    observer.observe(view.lines.parentElement);
  }

  /** Empties the log for a person in a room. */
  reset(self) {
    this.#self = self;
    this.#lines = [];
    this.#fresh = [];
    this.#stale.clear();
    this.#sent.clear();
    this.#view.lines.replaceChildren();
    this.#view.outbox.replaceChildren();
    this.#view.outbox.hidden = true;
    this.toEnd();
  }

  /** Whether nobody has said anything yet. */
  get silent() {
    return !this.#lines.some(({ kind }) => kind === 'chat') && this.#sent.size === 0;
  }

  /** Whether the newest line is in view. */
  get inView() {
    return this.#atEnd && !document.hidden;
  }

  /** `timeless`: nobody knows when it was said; `older`: before we came, too. */
  chat({ from, text, target, at = Date.now(), older = false, timeless = older }) {
    this.#add({ kind: 'chat', from, text, target, at, older, timeless });
  }

  /** The newest lines, for `restore` in a page that is loaded again. */
  keep() {
    const kept = [];
    let chars = 0;
    for (const { node, group, gone, ...line } of this.#lines.toReversed()) {
      if (!KEPT.has(line.kind)) continue;
      if (line.changes) line.changes = [...line.changes];
      chars += line.changes ? line.changes.length * CHANGE_CHARS : (line.text ?? '').length;
      if (kept.length >= KEPT_LINES_MAX || chars > KEPT_CHARS_MAX) break;
      kept.push(line);
    }
    return kept.reverse();
  }

  restore(lines) {
    // Another version of the page may have kept what this one does not know.
    for (const line of lines.filter(({ kind }) => KEPT.has(kind))) {
      this.#add({ ...line, ...(line.changes && { changes: new Map(line.changes) }) });
    }
  }

  note(kind, more = {}) {
    const last = this.#lines.at(-1);
    // A connection that comes and goes is told once.
    if (kind === 'resumed' && last?.kind === kind) this.#remove(last);
    this.#add({ kind, at: Date.now(), ...more });
  }

  /** `event` is add or leave; neighbours share a line. */
  presence(event, user) {
    const last = this.#lines.at(-1);
    const at = Date.now();
    if (last?.kind === 'presence' && at - last.at < PRESENCE_PAUSE_MS) {
      const change = last.changes.get(user);
      if (change) change.last = event;
      else last.changes.set(user, { first: event, last: event });
      last.at = at;
      this.#stale.add(last);
      this.#draw();
      return;
    }
    this.#add({ kind: 'presence', at, changes: new Map([[user, { first: event, last: event }]]) });
  }

  /** Marks where the page was left; an older mark goes. */
  markUnread() {
    this.unmark();
    this.#add({ kind: 'unread', at: Date.now() });
  }

  unmark() {
    for (const line of this.#lines.filter(({ kind }) => kind === 'unread')) this.#remove(line);
  }

  /** Shows a message of ours below the log until it has its place in it. */
  outgoing(message) {
    const old = this.#sent.get(message.key);
    if (message.state === 'delivered' || message.state === 'discarded') {
      this.#sent.delete(message.key);
      old?.remove();
    } else {
      const node = outgoingNode(message, {
        onRetry: () => this.#actions.onRetry(message),
        onDiscard: () => this.#actions.onDiscard(message),
      });
      node.message = message;
      this.#sent.set(message.key, node);
      if (old) old.replaceWith(node);
      else this.#view.outbox.append(node);
    }
    this.#view.outbox.hidden = this.#sent.size === 0;
    if (this.#atEnd) soon(() => this.#toEndNow());
  }

  /** Draws every line again, in another language. */
  redraw() {
    this.#view.lines.replaceChildren();
    for (const line of this.#lines) line.node = line.group = null;
    this.#fresh = [...this.#lines];
    for (const node of [...this.#sent.values()]) this.outgoing(node.message);
    this.#drawNow({ counting: false });
    this.#showJump();
  }

  toEnd({ smooth = false } = {}) {
    const { scroller } = this.#view;
    this.#unseen = 0;
    this.#showJump();
    if (smooth && !matchMedia('(prefers-reduced-motion: reduce)').matches) {
      scroller.scrollTo({ top: scroller.scrollHeight, behavior: 'smooth' });
    } else {
      this.#atEnd = true;
      this.#toEndNow();
    }
  }

  // ---- adding

  #add(line) {
    const last = this.#lines.at(-1);
    const newDay = !last || !sameDay(last.at, line.at);
    if (newDay && line.kind !== 'date' && !line.timeless && line.kind !== 'earlier') this.#put({ kind: 'date', at: line.at });
    this.#put(line);
    this.#draw();
  }

  #put(line) {
    this.#lines.push(line);
    this.#fresh.push(line);
  }

  /** Collects what arrives until the next frame: a busy room costs one layout per frame. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    soon(() => this.#drawNow({ counting: true }));
  }

  #drawNow({ counting }) {
    this.#drawing = false;
    const follow = this.#atEnd;
    for (const line of this.#stale) {
      if (!line.node) continue;
      const node = NOTES[line.kind](line);
      if (line.node.open) node.open = true;
      line.node.replaceWith(node);
      line.node = node;
    }
    this.#stale.clear();
    const fresh = this.#fresh;
    this.#fresh = [];
    for (const line of fresh) this.#render(line);
    this.#trim(follow);
    if (follow) this.#toEndNow();
    else if (counting) {
      this.#unseen += fresh.filter(({ kind, from }) => kind === 'chat' && from !== this.#self).length;
    }
    this.#showJump();
  }

  #render(line) {
    if (line.gone) return;
    if (line.kind !== 'chat') {
      line.node = NOTES[line.kind](line);
      this.#view.lines.append(line.node);
      return;
    }
    const before = this.#view.lines.lastElementChild?.line;
    let group = this.#view.lines.lastElementChild;
    if (!before || !sameGroup(before, line)) {
      group = groupNode(line, { self: this.#self, onWhisper: this.#actions.onWhisper });
      this.#view.lines.append(group);
    }
    group.line = line;
    line.group = group;
    line.node = bubbleNode(line, this.#self);
    group.querySelector('.stack').append(line.node);
  }

  // ---- the bound

  /** Drops the oldest lines. Whoever reads further up keeps the text under their eyes. */
  #trim(follow) {
    const excess = this.#lines.length - LINES_MAX;
    if (excess <= 0) return;
    const { scroller } = this.#view;
    const before = follow ? 0 : scroller.scrollHeight;
    for (const line of this.#lines.splice(0, excess)) this.#erase(line);
    if (!follow) scroller.scrollTop -= before - scroller.scrollHeight;
  }

  #remove(line) {
    this.#lines = this.#lines.filter((other) => other !== line);
    this.#erase(line);
  }

  #erase(line) {
    line.gone = true;
    line.node?.remove();
    if (line.group && !line.group.querySelector('.bubble')) line.group.remove();
  }

  // ---- place

  #scrolled() {
    const { scroller } = this.#view;
    const distance = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
    const up = scroller.scrollTop < this.#top;
    this.#top = scroller.scrollTop;
    // Lines that were added meanwhile put the end further away; only going up turns away from it.
    if (distance < END_SLACK_PX) this.#atEnd = true;
    else if (up) this.#atEnd = false;
    if (this.#atEnd) this.#unseen = 0;
    this.#showJump();
  }

  #toEndNow() {
    const { scroller } = this.#view;
    scroller.scrollTop = scroller.scrollHeight;
    this.#top = scroller.scrollTop;
  }

  #showJump() {
    const { jump, jumpText } = this.#view;
    jump.hidden = this.#atEnd;
    jump.classList.toggle('plain', this.#unseen === 0);
    jumpText.textContent = this.#unseen ? t('chat.new', { count: this.#unseen }) : t('chat.latest');
  }
}

function sameDay(left, right) {
  return new Date(left).toDateString() === new Date(right).toDateString();
}

function sameGroup(before, line) {
  const same = ['from', 'target', 'older', 'timeless'].every((member) => before[member] === line[member]);
  return same && line.at - before.at < GROUP_PAUSE_MS;
}
