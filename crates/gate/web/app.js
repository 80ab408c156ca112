// The page: the door, the room, and what passes between them and the client.

import { Client } from './client.js';
import { Composer } from './composer.js';
import { Door } from './door.js';
import { byId, make, nameNode } from './dom.js';
import { onLanguage, startLanguage, t, tNodes } from './i18n.js';
import { MessageLog } from './log.js';
import { Members } from './members.js';
import { Notices } from './notices.js';
import { EVERYONE } from './outbox.js';
import { Preferences } from './preferences.js';
import { settings, tab } from './settings.js';
import { Tabs } from './tabs.js';
import { checkName, cleanName } from './text.js';

/** What this page needs when it is loaded again is noted this long after a change. */
const SAVE_PAUSE_MS = 1000;

const client = new Client(document.baseURI);
const tabs = new Tabs((name, room) => isAlive() && name === client.name && room === client.room);
const notices = new Notices({ onOpen: openNotice });
const door = new Door({ onJoin: join, onCancel: () => client.leave() });
const members = new Members({ onWhisper: whisperTo, onChange: membersChanged });
const composer = new Composer({ members, onSend: send, onTarget: (name) => members.mark(name) });
const log = new MessageLog(
  {
    scroller: byId('scroller'),
    lines: byId('lines'),
    outbox: byId('outbox'),
    jump: byId('jump'),
    jumpText: byId('jump-text'),
  },
  {
    onWhisper: whisperTo,
    onRetry: (message) => client.resend(message),
    onDiscard: (message) => {
      client.discard(message);
      composer.focus();
    },
  },
);
let state = { phase: 'idle' };
let inRoom = false;
let countdown = 0;
let saving = 0;

// ---- in and out

function join(name, room) {
  settings.set('name', name);
  settings.set('room', room);
  client.join(name, room);
}

/**
 * Notes what this page needs when it is loaded again. All in one, so that what it shows and where it
 * stands always fit together. `left`: the page goes and leaves its place to the next one. Without
 * that word whoever reads the note may be a copy of a page that is still there. Returns whether it
 * is noted.
 */
function save({ left = false } = {}) {
  clearTimeout(saving);
  saving = 0;
  if (!inside()) return false;
  const { name, room } = client;
  const kept = client.keep();
  // An old server has nothing to go on from.
  const more = kept.place ? { kept, lines: log.keep() } : {};
  return tab.set('inside', JSON.stringify({ name, room, left: left && isAlive(), ...more }));
}

function saveSoon() {
  if (inside()) saving ||= setTimeout(save, SAVE_PAUSE_MS);
}

/** Whether this page shows a room that it was in. */
function inside() {
  return inRoom && client.phase !== 'idle';
}

/** Whether this page has a place in a room, or is about to get it back. */
function isAlive() {
  return inside() && client.phase !== 'ended';
}

function showDoor(focus) {
  inRoom = false;
  byId('chat').hidden = true;
  notices.reset();
  notices.title = 'Tangelo';
  door.show(focus);
}

function showRoom() {
  if (inRoom) return;
  inRoom = true;
  const { name, room } = client;
  door.hide();
  byId('chat').hidden = false;
  byId('room-name').textContent = room;
  if (location.hash !== `#${encodeURIComponent(room)}`) history.replaceState(null, '', `#${encodeURIComponent(room)}`);
  notices.reset();
  notices.title = `#${room} · Tangelo`;
  members.reset(name);
  log.reset(name);
  composer.reset(name, room);
  showEmpty();
}

function leave() {
  tab.set('draft', null);
  forget();
  showDoor('room');
}

function forget() {
  clearTimeout(saving);
  saving = 0;
  tab.set('inside', null);
  client.leave();
}

function roomOfAddress() {
  try {
    const room = cleanName(decodeURIComponent(location.hash.slice(1)));
    return checkName(room) === null ? room : '';
  } catch {
    return '';
  }
}

// ---- what the client tells

client.addEventListener('state', ({ detail }) => {
  state = detail;
  clearInterval(countdown);
  if (inRoom) {
    showState();
    if (state.retryAt) countdown = setInterval(showStatus, 500);
  } else {
    door.showState(state, client.name);
  }
});

client.addEventListener('entered', ({ detail }) => {
  const { users, again, awayMs, outcome, history } = detail;
  const first = !inRoom;
  showRoom();
  showState();
  members.set(users);
  // The answer to `enter` is newer than any push, and we are in it whatever it says.
  members.add(client.name);
  if (outcome === 'resumed') log.note('resumed', { awayMs });
  else if (outcome === 'reset') log.note('gap');
  else if (again) log.note('again', { awayMs });
  if (outcome === 'joined' && history.length) log.note('earlier');
  for (const chat of history) log.chat({ ...chat, older: outcome === 'joined', timeless: true });
  if (!again) log.note('entered', { room: client.room });
  // Not at once: what was missed has still to be shown.
  saveSoon();
  showEmpty();
  composer.refresh();
  if (first) composer.focus();
});

client.addEventListener('add', ({ detail: { user, missed } }) => {
  saveSoon();
  if (user === client.name) return;
  // Who is here now was told already; this is what happened meanwhile.
  if (missed) log.presence('add', user);
  else if (members.add(user)) {
    log.presence('add', user);
    notices.arrived(user);
  }
});

client.addEventListener('leave', ({ detail: { user, missed } }) => {
  saveSoon();
  if (user !== client.name && (missed || members.remove(user))) log.presence('leave', user);
});

client.addEventListener('count', ({ detail: { count } }) => members.tell(count));

client.addEventListener('gap', () => log.note('gap'));

client.addEventListener('chat', ({ detail }) => {
  const { from, text, target } = detail;
  const seen = log.inView;
  if (from !== client.name && document.hidden && !unreadMarked) {
    log.markUnread();
    unreadMarked = true;
  }
  log.chat({ from, text, target });
  saveSoon();
  showEmpty();
  if (from !== client.name && !seen) notices.message({ from, text, whisper: target !== EVERYONE });
});

client.addEventListener('outgoing', ({ detail: message }) => {
  log.outgoing(message);
  // An echo brings its own line, in the room's order. Whispers have none.
  if (message.state === 'delivered' && !message.echoed) {
    log.chat({ from: client.name, text: message.text, target: message.target });
  }
  saveSoon();
  showEmpty();
});

// ---- what the person does

function send(text, target) {
  log.unmark();
  client.send(text, target);
  log.toEnd();
}

function whisperTo(name) {
  composer.whisperTo(name);
  byId('draft').focus();
}

function openNotice(name, whisper) {
  log.toEnd();
  if (whisper && members.has(name)) whisperTo(name);
  else byId('draft').focus();
}

async function invite() {
  const link = new URL(`#${encodeURIComponent(client.room)}`, document.baseURI).href;
  try {
    await navigator.clipboard.writeText(link);
    notices.tell(t('chat.copied'));
  } catch {
    // Pages without TLS may not write to the clipboard.
    notices.tell(t('chat.copy.failed', { link }));
  }
}

byId('leave').addEventListener('click', leave);
byId('invite').addEventListener('click', invite);
byId('empty-invite').addEventListener('click', invite);
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId('draft').focus();
});

// ---- what is shown

function membersChanged() {
  composer.refresh();
  showEmpty();
  showStatus();
}

function showEmpty() {
  byId('empty').hidden = !log.silent;
  const alone = members.count <= 1;
  byId('empty-text').textContent = t(alone ? 'chat.alone' : 'chat.empty.text');
  byId('empty-invite').hidden = !alone;
}

function statusText() {
  if (state.phase !== 'waiting') return t(`state.${state.phase}`);
  if (state.reason === 'offline') return t('state.offline');
  const seconds = Math.max(1, Math.ceil((state.retryAt - Date.now()) / 1000));
  return t('state.waiting', { seconds });
}

function showStatus() {
  if (!inRoom || state.phase === 'idle') return;
  const count = t('members.count', { count: members.count });
  byId('status').dataset.phase = state.phase;
  // For whoever asks where they are connected to; tests do.
  byId('status').dataset.connector = client.connector;
  byId('status-text').textContent = statusText();
  byId('status-count').textContent = state.phase === 'online' ? `· ${count}` : '';
}

function showState() {
  showStatus();
  const { phase, reason, detail } = state;
  const banner = byId('banner');
  // It stays as it is while an attempt runs, rather than blink.
  if (phase === 'retrying' && !banner.hidden) return;
  const trouble = phase === 'waiting' || phase === 'ended';
  banner.hidden = !trouble;
  if (!trouble) return;
  banner.classList.toggle('final', phase === 'ended');
  byId('banner-text').replaceChildren(bannerWords(phase, reason, detail));
  const again = bannerButton('banner.again', () => client.retry());
  const rename = bannerButton('banner.rename', () => {
    forget();
    showDoor('name');
  });
  const here = bannerButton('banner.here', () => client.retry());
  const now = bannerButton('banner.now', () => client.resume());
  const tools = { taken: [rename, again], elsewhere: [here] };
  byId('banner-tools').replaceChildren(...(phase === 'waiting' ? [now] : (tools[reason] ?? [again])));
}

function bannerWords(phase, reason, detail) {
  if (phase === 'waiting') {
    const key = reason === 'offline' || reason === 'taken' ? `banner.${reason}` : 'banner.waiting';
    return tNodes(key);
  }
  if (reason === 'taken') return tNodes('banner.ended.taken', { name: nameNode(client.name) });
  if (reason === 'kicked' && detail) return tNodes('refused.kicked.why', { detail });
  return tNodes(`refused.${reason || 'lost'}`);
}

function bannerButton(key, action) {
  return make('button', { type: 'button', class: 'secondary', on: { click: action } }, t(key));
}

// ---- the page itself

let unreadMarked = false;
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    unreadMarked = false;
    save();
  } else {
    client.resume();
  }
});
window.addEventListener('online', () => client.resume());
window.addEventListener('pagehide', () => {
  client.suspend({ forGood: !save({ left: true }) });
});
window.addEventListener('pageshow', (event) => {
  if (!event.persisted) return;
  save();
  client.resume();
});
window.addEventListener('hashchange', () => {
  const room = roomOfAddress();
  if (!room || (inRoom && room === client.room)) return;
  const name = client.name;
  if (inRoom) {
    leave();
    door.fill(name, room);
    join(name, room);
  } else {
    door.fill(null, room);
  }
});
onLanguage(() => {
  log.redraw();
  members.draw();
  composer.refresh();
  door.refresh();
  if (inRoom) showState();
});

/** What this tab was in when its page was loaded last; nothing if it was in no room. */
function earlierPlace() {
  try {
    const earlier = JSON.parse(tab.get('inside'));
    return earlier?.name && earlier.room ? earlier : null;
  } catch {
    // Not ours.
    return null;
  }
}

/** Goes back into the room that this tab was in, and shows what it has shown. */
async function goOn(earlier) {
  const { name, room, left, kept } = earlier;
  Object.assign(client, { name, room });
  showRoom();
  log.restore(earlier.lines ?? []);
  showEmpty();
  tab.set('inside', JSON.stringify({ ...earlier, left: false }));
  const elsewhere = !left && (await tabs.isElsewhere(name, room));
  // Somebody may have been quicker than the other tabs.
  if (inRoom && client.phase === 'idle') client.join(name, room, { again: true, kept, elsewhere });
}

function start() {
  startLanguage();
  new Preferences();
  const room = roomOfAddress();
  door.fill(settings.get('name') ?? '', room || settings.get('room') || '');
  const earlier = earlierPlace();
  if (!earlier || (room && room !== earlier.room)) {
    showDoor();
    return;
  }
  goOn(earlier).catch((error) => {
    // Another version of the page may have noted what this one cannot read.
    console.error(error);
    forget();
    showDoor();
  });
}

start();
