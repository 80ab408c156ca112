// What reaches a person who is not looking: pop-ups in the page, notifications by the browser,
// and the number of unread messages in the title.

import { avatar, byId, icon, make, nameNode } from './dom.js';
import { t, tNodes } from './i18n.js';
import { settings } from './settings.js';

/** Pop-ups at once; on a narrow screen they would cover what is being read. */
const SHOWN_MAX = matchMedia('(max-width: 560px)').matches ? 1 : 3;
const LIFE_MS = 6000;
const TEXT_CHARS_MAX = 140;

export class Notices {
  #arrivals = null;
  #unread = 0;
  #title = 'Tangelo';
  #onOpen;

  /** `onOpen(name, whisper)`: a notice about that person was chosen. */
  constructor({ onOpen }) {
    this.#onOpen = onOpen;
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#setUnread(0);
    });
    byId('notices').addEventListener('keydown', (event) => {
      if (event.key === 'Escape') event.target.closest('.notice')?.dismiss();
    });
  }

  static get popups() {
    return settings.get('notices') !== 'off';
  }

  static set popups(wanted) {
    settings.set('notices', wanted ? null : 'off');
    if (!wanted) byId('notices').replaceChildren();
  }

  /** Notifications by the browser: granted, denied, default, or absent. */
  static get systemPermission() {
    return 'Notification' in window && window.isSecureContext ? Notification.permission : 'absent';
  }

  static get system() {
    return settings.get('notifications') === 'on' && Notices.systemPermission === 'granted';
  }

  /** Asks the browser if need be. Resolves with whether they are on. */
  static async setSystem(wanted) {
    if (wanted && Notices.systemPermission === 'default') await Notification.requestPermission();
    settings.set('notifications', wanted ? 'on' : null);
    return Notices.system;
  }

  /** The title of the page when nothing is unread. */
  set title(text) {
    this.#title = text;
    this.#setUnread(0);
  }

  reset() {
    byId('notices').replaceChildren();
    this.#arrivals = null;
    this.#setUnread(0);
  }

  /** Somebody came in. Several at once share one notice. */
  arrived(name) {
    const shown = this.#arrivals;
    // One that is about to go, or has gone, tells nobody anything any more.
    if (shown?.node?.isConnected && shown.node.renew()) {
      shown.names.add(name);
      if (shown.names.size > 1) shown.node.becomeMany(t('notice.many', { count: shown.names.size }));
      return;
    }
    const node = this.#show({ name, key: 'notice.online', kind: 'arrival' });
    this.#arrivals = { node, names: new Set([name]) };
  }

  /** A message that nobody has seen yet: `visible` says whether the page is. */
  message({ from, text, whisper }) {
    if (document.hidden) this.#setUnread(this.#unread + 1);
    this.#show({ name: from, text, key: whisper ? 'notice.whisper' : 'notice.message', kind: whisper ? 'whisper' : 'message' });
    if (document.hidden && Notices.system) this.#notify(from, text, whisper);
  }

  /** A short word about the page itself. */
  tell(words) {
    byId('notices').append(
      this.#alive(make('div', { class: 'notice plain', role: 'status' }, make('p', {}, words))),
    );
  }

  #show({ name, text = '', key, kind }) {
    if (!Notices.popups) return null;
    const box = byId('notices');
    const id = `${kind}:${name}`;
    for (const older of box.children) {
      // The newest word of a person stands for the ones before it.
      if (older.dataset.about === id) older.remove();
    }
    const heading = make('span', { class: 'notice-title' }, tNodes(key, { name: nameNode(name) }));
    const body = text ? make('span', { class: 'notice-text', dir: 'auto' }, shorten(text)) : null;
    const picture = avatar(name);
    const open = make(
      'button',
      { class: 'notice-open', type: 'button' },
      picture,
      make('span', { class: 'notice-words' }, heading, body),
    );
    const close = make('button', { class: 'mini', type: 'button', 'aria-label': t('notice.close') }, icon('close'));
    const never = make('button', { class: 'notice-never', type: 'button' }, t('notice.never'));
    const notice = this.#alive(make('div', { class: `notice ${kind}`, 'data-about': id }, open, close, never));
    notice.becomeMany = (words) => {
      heading.replaceChildren(words);
      picture.replaceChildren(icon('people'));
    };
    open.addEventListener('click', () => {
      notice.dismiss();
      this.#onOpen(name, kind === 'whisper');
    });
    close.addEventListener('click', () => notice.dismiss());
    never.addEventListener('click', () => {
      Notices.popups = false;
      this.tell(t('notice.off'));
    });
    box.append(notice);
    while (box.children.length > SHOWN_MAX) box.firstElementChild.remove();
    return notice;
  }

  /** Goes by itself, but not while it is pointed at, focused, or out of sight. */
  #alive(notice) {
    const held = () => document.hidden || notice.matches(':hover, :focus-within');
    let timer;
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (!notice.isConnected) return;
        if (held()) wait();
        else notice.dismiss();
      }, LIFE_MS);
    };
    notice.dismiss = () => {
      clearTimeout(timer);
      notice.classList.add('going');
      setTimeout(() => notice.remove(), 180);
    };
    // What it says has changed: it stays as long as a new one. False if it is going already.
    notice.renew = () => {
      if (notice.classList.contains('going')) return false;
      wait();
      return true;
    };
    wait();
    return notice;
  }

  #notify(from, text, whisper) {
    try {
      const notification = new Notification(t(whisper ? 'notice.whisper' : 'notice.message', { name: from }), {
        body: shorten(text),
        icon: 'favicon.svg',
        tag: `tangelo-${from}`,
      });
      notification.onclick = () => {
        window.focus();
        notification.close();
        this.#onOpen(from, whisper);
      };
    } catch {
      // Some phones allow them to service workers only.
    }
  }

  #setUnread(count) {
    this.#unread = count;
    document.title = count ? `(${count > 99 ? '99+' : count}) ${this.#title}` : this.#title;
    byId('favicon').href = count ? 'favicon-unread.svg' : 'favicon.svg';
  }
}

function shorten(text) {
  const letters = [...text.replace(/\s+/gu, ' ')];
  return letters.length > TEXT_CHARS_MAX ? `${letters.slice(0, TEXT_CHARS_MAX).join('')}…` : letters.join('');
}
