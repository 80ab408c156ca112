// The form in front of a room: name, room, and what is wrong with them in words.

import { byId } from './dom.js';
import { t } from './i18n.js';
import { checkName, cleanName } from './text.js';

export class Door {
  #onJoin;
  #busy = false;
  #refusal = null;
  #wrong = new Map();

  constructor({ onJoin, onCancel }) {
    this.#onJoin = onJoin;
    byId('join').addEventListener('submit', (event) => {
      event.preventDefault();
      if (!this.#busy) this.#submit();
    });
    byId('join-cancel').addEventListener('click', onCancel);
    for (const field of ['name', 'room']) {
      byId(field).addEventListener('input', () => {
        this.#refuse(null);
        // Being told off while typing helps nobody; being told that it is right now does.
        if (this.#wrong.has(field)) this.#check(field);
      });
    }
  }

  fill(name, room) {
    if (name !== null) byId('name').value = name;
    if (room !== null) byId('room').value = room;
  }

  /** `focus` is name or room; without it the first empty field. */
  show(focus) {
    byId('door').hidden = false;
    const field = focus ?? (byId('name').value ? (byId('room').value ? 'name' : 'room') : 'name');
    byId(field).focus();
    byId(field).select();
  }

  hide() {
    byId('door').hidden = true;
    this.#setBusy(false);
    this.#refuse(null);
  }

  /** The client's state while nobody is in a room. */
  showState({ phase, reason, detail }, name) {
    this.#setBusy(phase === 'joining' || phase === 'waiting' || phase === 'retrying');
    if (phase === 'ended') this.#refuse({ reason, detail, name });
  }

  /** The same words in another language. */
  refresh() {
    for (const field of this.#wrong.keys()) this.#check(field);
    this.#refuse(this.#refusal);
    this.#setBusy(this.#busy);
  }

  #submit() {
    this.#refuse(null);
    const good = ['name', 'room'].filter((field) => this.#check(field));
    if (good.length === 2) {
      this.#onJoin(cleanName(byId('name').value), cleanName(byId('room').value));
      return;
    }
    byId(good.includes('name') ? 'room' : 'name').focus();
  }

  #check(field) {
    const value = cleanName(byId(field).value);
    const wrong = checkName(value);
    if (wrong) this.#wrong.set(field, wrong);
    else this.#wrong.delete(field);
    const words = wrong ? t(`${field}.${wrong.reason}`, { letter: wrong.letter, count: [...value].length }) : '';
    this.#tell(field, words);
    return !wrong;
  }

  #tell(field, words) {
    byId(`${field}-error`).textContent = words;
    byId(field).setAttribute('aria-invalid', String(words !== ''));
  }

  #refuse(refusal) {
    const had = this.#refusal?.reason;
    this.#refusal = refusal;
    const words = refusal ? refusalWords(refusal) : '';
    const aboutName = refusal?.reason === 'taken';
    if (aboutName || (had === 'taken' && !this.#wrong.has('name'))) this.#tell('name', aboutName ? words : '');
    byId('join-error').textContent = aboutName ? '' : words;
    byId('join-error').hidden = aboutName || !refusal;
    if (aboutName) {
      byId('name').focus();
      byId('name').select();
    }
  }

  #setBusy(busy) {
    this.#busy = busy;
    const go = byId('join-go');
    go.textContent = t(busy ? 'join.going' : 'join.go');
    go.setAttribute('aria-disabled', String(busy));
    byId('join-cancel').hidden = !busy;
    for (const field of ['name', 'room']) byId(field).readOnly = busy;
  }
}

function refusalWords({ reason, detail }) {
  if (reason === 'kicked' && detail) return t('refused.kicked.why', { detail });
  return t(`refused.${reason || 'lost'}`);
}
