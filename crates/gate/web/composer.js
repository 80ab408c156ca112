// The message field: grows, counts, whispers, and keeps a draft until it is sent.

import { EVERYONE } from './outbox.js';
import { byId, nameNode } from './dom.js';
import { t, tNodes } from './i18n.js';
import { tab } from './settings.js';
import { TEXT_BYTES_MAX, byteLength, cleanText, parseWhisper } from './text.js';

/** The counter shows from here on. */
const COUNT_FROM_BYTES = TEXT_BYTES_MAX * 0.8;

export class Composer {
  #field = byId('draft');
  #members;
  #onSend;
  #onTarget;
  #room = '';
  #self = '';
  #target = null;

  /** `onSend(text, target)`; `onTarget(nameOrNull)` when the person whispered to changes. */
  constructor({ members, onSend, onTarget }) {
    this.#members = members;
    this.#onSend = onSend;
    this.#onTarget = onTarget;
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#field.addEventListener('input', () => this.#edited());
    this.#field.addEventListener('keydown', (event) => this.#key(event));
    byId('whisper-stop').addEventListener('click', () => {
      this.whisperTo(null);
      this.focus();
    });
  }

  reset(self, room) {
    this.#self = self;
    this.#room = room;
    this.#target = null;
    this.#field.value = tab.get('draft') ?? '';
    this.#edited();
    this.refresh();
  }

  /** Puts the cursor into the field, except where that would raise a phone's keyboard. */
  focus() {
    if (matchMedia('(pointer: coarse)').matches && !this.#field.value) return;
    this.#field.focus();
  }

  /** Whispers to `name` from now on; `null` talks to everyone. */
  whisperTo(name) {
    if (name === this.#self) return;
    this.#target = name;
    this.#onTarget(name);
    this.#say('');
    this.refresh();
  }

  /** Words that depend on the language and on who is here. */
  refresh() {
    const name = this.#target;
    byId('composer').classList.toggle('is-whisper', name !== null);
    byId('whispering').hidden = name === null;
    this.#field.placeholder =
      name === null ? t('write.everyone', { room: `#${this.#room}` }) : t('write.whisper', { name });
    this.#field.setAttribute('aria-label', this.#field.placeholder);
    if (name !== null) {
      const key = this.#members.has(name) ? 'whisper.to' : 'whisper.gone';
      byId('whispering-text').replaceChildren(tNodes(key, { name: nameNode(name) }));
    }
    this.#measure();
  }

  #key(event) {
    // While an input method is open, Enter chooses a word.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Enter' && !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      this.#submit();
    } else if (this.#target !== null && this.#wantsEveryone(event)) {
      event.preventDefault();
      this.whisperTo(null);
    }
  }

  #wantsEveryone(event) {
    return event.key === 'Escape' || (event.key === 'Backspace' && this.#field.value === '');
  }

  #submit() {
    const typed = this.#field.value;
    const whisper = parseWhisper(typed);
    if (whisper) this.#submitWhisper(whisper);
    else this.#submitText(cleanText(typed), this.#target ?? EVERYONE);
  }

  #submitWhisper({ name, text }) {
    if (!name) {
      this.#say(t('whisper.who'));
      return;
    }
    // A large room does not tell everybody's name; then the server says whether one is there.
    const member = this.#members.find(name) ?? (this.#members.isVague ? name : null);
    if (member === this.#self) this.#say(t('whisper.self'));
    else if (member === null) this.#say(t('whisper.absent', { name }));
    else if (text) this.#submitText(text, member);
    else {
      this.#clear();
      this.whisperTo(member);
    }
  }

  #submitText(text, target) {
    if (!text.trim()) return;
    if (byteLength(text) > TEXT_BYTES_MAX) return;
    this.#clear();
    this.#onSend(text, target);
  }

  #clear() {
    this.#field.value = '';
    this.#edited();
  }

  #edited() {
    tab.set('draft', this.#field.value || null);
    this.#say('');
    // The style sheet makes the field as high as this copy of its text.
    this.#field.parentElement.dataset.text = this.#field.value;
    this.#measure();
  }

  #measure() {
    const text = cleanText(this.#field.value);
    const bytes = byteLength(text);
    const over = bytes > TEXT_BYTES_MAX;
    const size = byId('write-size');
    size.classList.toggle('over', over);
    if (over) size.textContent = t('write.over', { count: bytes - TEXT_BYTES_MAX });
    else size.textContent = bytes >= COUNT_FROM_BYTES ? t('write.left', { count: TEXT_BYTES_MAX - bytes }) : '';
    this.#field.setAttribute('aria-invalid', String(over));
    byId('send').disabled = over || !text.trim();
  }

  #say(words) {
    byId('write-error').textContent = words;
  }
}
