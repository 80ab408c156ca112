// Who is in the room: a panel on a wide screen, a drawer on a narrow one.

import { avatar, byId, make, nameNode, soon } from './dom.js';
import { t } from './i18n.js';

/** Members drawn at once; the rest are found by typing. */
const SHOWN_MAX = 300;
/** From this many on there is a field to find a name. */
const FIND_FROM = 12;

export class Members {
  #names = new Set();
  /** How many there are, once the server has told that: then not all names are known. */
  #told = null;
  #self = '';
  #target = null;
  #drawing = false;
  #onWhisper;
  #onChange;
  #opener = null;
  #narrow = matchMedia('(max-width: 860px)');

  /** `onWhisper(name)`: somebody was chosen. `onChange()`: the list is another. */
  constructor({ onWhisper, onChange }) {
    this.#onWhisper = onWhisper;
    this.#onChange = onChange;
    byId('members-find').addEventListener('input', () => this.draw());
    byId('people').addEventListener('click', () => this.open());
    byId('members-close').addEventListener('click', () => this.close());
    byId('scrim').addEventListener('click', () => this.close());
    byId('members').addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.isOpen) {
        event.stopPropagation();
        this.close();
      }
    });
    this.#narrow.addEventListener('change', () => this.close({ focus: false }));
    this.close({ focus: false });
  }

  reset(self) {
    this.#self = self;
    this.#names = new Set();
    this.#told = null;
    byId('members-find').value = '';
    this.close({ focus: false });
    this.draw();
  }

  set(names) {
    this.#names = new Set(names);
    this.#told = null;
    this.#later();
  }

  /** There are so many, of whom not all are told. Who comes and goes after that is. */
  tell(count) {
    this.#told = count;
    this.#later();
  }

  /** Whether there may be others than those listed, and some of those may have gone. */
  get isVague() {
    return this.#told !== null;
  }

  /** Whether the name is new. */
  add(name) {
    if (this.#told !== null) this.tell(this.#told + 1);
    if (this.#names.has(name)) return false;
    this.#names.add(name);
    this.#later();
    return true;
  }

  /** Whether the name was there. */
  remove(name) {
    if (this.#told !== null) this.tell(Math.max(0, this.#told - 1));
    const was = this.#names.delete(name);
    if (was) this.#later();
    return was;
  }

  has(name) {
    return this.#names.has(name);
  }

  /** The member that was meant, whatever the case of its letters. */
  find(name) {
    if (this.#names.has(name)) return name;
    const lower = name.toLocaleLowerCase();
    const alike = [...this.#names].filter((other) => other.toLocaleLowerCase() === lower);
    return alike.length === 1 ? alike[0] : null;
  }

  get count() {
    return this.#told ?? this.#names.size;
  }

  /** Marks the member that is being whispered to, or nobody. */
  mark(target) {
    this.#target = target;
    this.#later();
  }

  get isOpen() {
    return document.body.classList.contains('drawer');
  }

  open() {
    if (!this.#narrow.matches) return;
    this.#opener = document.activeElement;
    document.body.classList.add('drawer');
    byId('scrim').hidden = false;
    this.#guard(true);
    byId('members-close').focus();
  }

  close({ focus = true } = {}) {
    const was = this.isOpen;
    document.body.classList.remove('drawer');
    byId('scrim').hidden = true;
    this.#guard(false);
    if (was && focus) this.#opener?.focus();
  }

  /** Behind an open drawer nothing takes the focus, and nothing in a closed one does. */
  #guard(open) {
    byId('talk').inert = open;
    for (const part of document.querySelectorAll('.bar')) part.inert = open;
    byId('members').inert = this.#narrow.matches && !open;
    byId('people').setAttribute('aria-expanded', String(open));
  }

  #later() {
    if (this.#drawing) return;
    this.#drawing = true;
    soon(() => this.draw());
  }

  draw() {
    this.#drawing = false;
    const find = byId('members-find');
    find.hidden = this.#names.size < FIND_FROM;
    const wanted = find.hidden ? '' : find.value.trim().toLocaleLowerCase();
    const others = [...this.#names]
      .filter((name) => name !== this.#self && name.toLocaleLowerCase().includes(wanted))
      .sort(new Intl.Collator().compare);
    const self = this.#names.has(this.#self) && this.#self.toLocaleLowerCase().includes(wanted);
    const shown = [...(self ? [this.#self] : []), ...others].slice(0, SHOWN_MAX);
    const focused = document.activeElement?.closest?.('#members-list li')?.dataset.name;
    byId('members-list').replaceChildren(...shown.map((name) => this.#item(name)));
    if (focused !== undefined) this.#focus(focused);
    const hidden = others.length + (self ? 1 : 0) - shown.length;
    const more = shown.length === 0 && wanted ? t('members.none') : hidden > 0 ? t('members.more', { count: hidden }) : '';
    byId('members-more').textContent = [more, this.isVague ? t('members.vague') : ''].filter(Boolean).join(' ');
    this.#count();
    this.#onChange();
  }

  #count() {
    const { count } = this;
    byId('members-count').textContent = count.toLocaleString();
    // Nobody is in a room of none: it is not known yet who is.
    byId('members-count').hidden = count === 0;
    byId('people-count').textContent = count.toLocaleString();
    byId('people').setAttribute('aria-label', t('members.open', { count }));
    byId('members').classList.toggle('crowd', this.#names.size > 1);
  }

  #item(name) {
    const item = make('li', { 'data-name': name });
    if (name === this.#self) {
      item.append(
        make('div', { class: 'member self' }, avatar(name), nameNode(name), make('span', { class: 'you' }, t('members.you'))),
      );
      return item;
    }
    const label = t('whisper.to', { name });
    const button = make(
      'button',
      {
        class: 'member',
        type: 'button',
        title: label,
        'aria-label': label,
        'aria-pressed': String(name === this.#target),
        on: { click: () => this.#choose(name) },
      },
      avatar(name),
      nameNode(name),
    );
    item.append(button);
    return item;
  }

  #choose(name) {
    this.close({ focus: false });
    this.#onWhisper(name);
  }

  #focus(name) {
    for (const item of byId('members-list').children) {
      if (item.dataset.name === name) item.firstElementChild.focus();
    }
  }
}
