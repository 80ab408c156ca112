// The page's words, in English and Chinese. A sentence may have {places}; a word that depends on
// a number is a list of forms by Intl.PluralRules.

import { settings } from './settings.js';

const en = {
  'app.tagline': 'A quick, quiet place to talk.',
  'join.title': 'Join a room',
  'join.name': 'Your name',
  'join.room': 'Room',
  'join.hint': 'Up to 20 letters, digits, _ or -',
  'join.go': 'Enter the room',
  'join.going': 'Entering…',
  'join.cancel': 'Cancel',
  'name.empty': 'Please choose a name.',
  'name.space': 'A name has no spaces. Try _ or - instead.',
  'name.letter': 'A name cannot contain “{letter}”. Letters, digits, _ and - are fine.',
  'name.long': 'That name is too long: {count} characters, 20 at most.',
  'room.empty': 'Please choose a room.',
  'room.space': 'A room name has no spaces. Try _ or - instead.',
  'room.letter': 'A room name cannot contain “{letter}”. Letters, digits, _ and - are fine.',
  'room.long': 'That room name is too long: {count} characters, 20 at most.',
  'refused.taken': 'That name is taken in this room. Please choose another.',
  'refused.name': 'The server does not accept that name or room.',
  'refused.forbidden': 'You are not allowed into this room.',
  'refused.busy': 'The server is busy. Please try again in a moment.',
  'refused.full': 'No chat server is free right now. Please try again in a moment.',
  'refused.gate': 'The server cannot be reached. Check your connection and try again.',
  'refused.connector': 'The chat server did not answer. Please try again.',
  'refused.lost': 'The connection was lost. Please try again.',
  'refused.elsewhere': 'This room is open under your name in another tab or window.',
  'refused.kicked': 'The server ended your session.',
  'refused.kicked.why': 'The server ended your session: {detail}',
  'state.joining': 'Connecting…',
  'state.online': 'Connected',
  'state.waiting': 'Reconnecting in {seconds} s',
  'state.retrying': 'Reconnecting…',
  'state.offline': 'You are offline',
  'state.ended': 'Disconnected',
  'banner.waiting': 'The connection was lost. Messages you write now are sent when it is back.',
  'banner.offline': 'Your device is offline. Messages you write now are sent when it is back.',
  'banner.taken': 'Your name still seems to be in use from before. Trying again.',
  'banner.ended.taken': 'While you were away somebody took the name {name} in this room.',
  'banner.now': 'Try now',
  'banner.again': 'Join again',
  'banner.here': 'Go on here',
  'banner.rename': 'Choose another name',
  'chat.skip': 'Skip to the message field',
  'chat.messages': 'Messages',
  'chat.outbox': 'Messages not yet sent',
  'chat.empty.title': 'Nothing said yet',
  'chat.empty.text': 'You see what is said while you are here.',
  'chat.alone': 'You are the first one here. Invite somebody with the link to this room.',
  'chat.invite': 'Copy a link to this room',
  'chat.copied': 'Link copied',
  'chat.copy.failed': 'The link to this room: {link}',
  'chat.leave': 'Leave',
  'chat.settings': 'Settings',
  'chat.new': { one: '{count} new message', other: '{count} new messages' },
  'chat.latest': 'To the latest',
  'chat.unread': 'New',
  'chat.earlier': 'Said before you came',
  'chat.missing': 'Some messages may be missing here',
  'chat.more': 'Show all of it',
  'chat.less': 'Show less',
  'chat.you': 'You',
  'line.from': '{name} at {time}:',
  'line.own': 'You at {time}:',
  'line.earlier.from': '{name} earlier:',
  'line.earlier.own': 'You earlier:',
  'line.whisper.from': '{name} whispers to you at {time}:',
  'line.whisper.own': 'You whisper to {name} at {time}:',
  'whisper.to': 'Whisper to {name}',
  'whisper.tag.in': 'whispers to you',
  'whisper.tag.out': 'Whisper to {name}',
  'whisper.gone': '{name} is not here now',
  'whisper.stop': 'Back to everyone',
  'whisper.self': 'You cannot whisper to yourself.',
  'whisper.absent': '{name} is not in this room.',
  'whisper.who': 'Whisper to whom? Write /w name and your message.',
  'members.title': 'In this room',
  'members.count': { one: '{count} person', other: '{count} people' },
  'members.open': { one: 'Show who is here: {count} person', other: 'Show who is here: {count} people' },
  'members.close': 'Close the list',
  'members.you': 'you',
  'members.find': 'Find a name',
  'members.none': 'Nobody by that name.',
  'members.more': 'and {count} more. Type to find a name.',
  'members.vague': 'So many are here that not everybody who comes or goes is listed.',
  'members.hint': 'Choose a name to whisper.',
  'note.joined': { one: '{names} joined', other: '{names} joined' },
  'note.left': { one: '{names} left', other: '{names} left' },
  'note.back': { one: '{names} left and came back', other: '{names} left and came back' },
  'note.passed': { one: '{names} looked in', other: '{names} looked in' },
  'note.people': { one: '{count} person', other: '{count} people' },
  'note.entered': 'You entered {room}',
  'note.again': 'You are back after {away}. What was said in between may be missing here.',
  'note.resumed': 'You are back after {away}. Nothing is missing.',
  'away.seconds': { one: '{count} second', other: '{count} seconds' },
  'away.minutes': { one: '{count} minute', other: '{count} minutes' },
  'write.label': 'Message',
  'write.everyone': 'Message everyone in {room}',
  'write.whisper': 'Whisper to {name}',
  'write.send': 'Send',
  'write.keys': 'Enter sends, Shift + Enter starts a new line. /w name whispers.',
  'write.left': '{count} bytes left',
  'write.over': 'Too long by {count} bytes',
  'sent.waiting': 'Waiting for the connection',
  'sent.sending': 'Sending…',
  'sent.again': 'The server is busy. Trying again.',
  'failed.unknown': 'The connection broke; it may not have arrived.',
  'failed.disconnected': 'Not sent: you are disconnected.',
  'failed.absent': 'Not sent: {name} is not in this room.',
  'failed.long': 'Not sent: too long.',
  'failed.busy': 'Not sent: the server is too busy.',
  'failed.forbidden': 'Not sent: this is not allowed.',
  'failed.refused': 'The server did not take it.',
  'failed.retry': 'Send again',
  'failed.discard': 'Discard',
  'notice.online': '{name} is here',
  'notice.many': { one: '{count} person came in', other: '{count} people came in' },
  'notice.message': '{name} says',
  'notice.whisper': '{name} whispers to you',
  'notice.close': 'Close',
  'notice.never': 'Don’t show these again',
  'notice.off': 'Pop-ups are off. You find them in the settings.',
  'settings.title': 'Settings',
  'settings.language': 'Language',
  'settings.theme': 'Appearance',
  'settings.theme.system': 'Automatic',
  'settings.theme.light': 'Light',
  'settings.theme.dark': 'Dark',
  'settings.notices': 'Notices',
  'settings.notices.popup': 'Pop-ups in the page',
  'settings.notices.popup.text': 'When somebody comes in, and for messages out of view.',
  'settings.notices.system': 'Notifications by the browser',
  'settings.notices.system.text': 'While this page is hidden.',
  'settings.notices.denied': 'Your browser does not allow them for this page.',
  'settings.close': 'Done',
};

const zh = {
  'app.tagline': '打开就聊，轻快安静。',
  'join.title': '进入房间',
  'join.name': '你的名字',
  'join.room': '房间',
  'join.hint': '最多 20 个字：汉字、字母、数字、_ 或 -',
  'join.go': '进入房间',
  'join.going': '正在进入…',
  'join.cancel': '取消',
  'name.empty': '请先取一个名字。',
  'name.space': '名字里不能有空格，可以用 _ 或 -。',
  'name.letter': '名字里不能有“{letter}”，可以用汉字、字母、数字、_ 和 -。',
  'name.long': '名字太长了：{count} 个字，最多 20 个。',
  'room.empty': '请填写房间名。',
  'room.space': '房间名里不能有空格，可以用 _ 或 -。',
  'room.letter': '房间名里不能有“{letter}”，可以用汉字、字母、数字、_ 和 -。',
  'room.long': '房间名太长了：{count} 个字，最多 20 个。',
  'refused.taken': '这个房间里已经有人用这个名字了，请换一个。',
  'refused.name': '服务器不接受这个名字或房间名。',
  'refused.forbidden': '你不能进入这个房间。',
  'refused.busy': '服务器正忙，请稍后再试。',
  'refused.full': '暂时没有可用的聊天服务器，请稍后再试。',
  'refused.gate': '连不上服务器，请检查网络后再试。',
  'refused.connector': '聊天服务器没有响应，请再试一次。',
  'refused.lost': '连接断开了，请再试一次。',
  'refused.elsewhere': '你已在另一个标签页或窗口里用这个名字进入了房间。',
  'refused.kicked': '服务器结束了你的会话。',
  'refused.kicked.why': '服务器结束了你的会话：{detail}',
  'state.joining': '正在连接…',
  'state.online': '已连接',
  'state.waiting': '{seconds} 秒后重新连接',
  'state.retrying': '正在重新连接…',
  'state.offline': '你已离线',
  'state.ended': '已断开',
  'banner.waiting': '连接断开了。现在写的消息会在恢复后发出。',
  'banner.offline': '设备没有网络。现在写的消息会在恢复后发出。',
  'banner.taken': '你之前的连接似乎还占着这个名字，正在重试。',
  'banner.ended.taken': '你离开期间，有人在这个房间里用了 {name} 这个名字。',
  'banner.now': '立即重试',
  'banner.again': '重新进入',
  'banner.here': '在这里继续',
  'banner.rename': '换个名字',
  'chat.skip': '跳到输入框',
  'chat.messages': '消息',
  'chat.outbox': '尚未发出的消息',
  'chat.empty.title': '还没有人说话',
  'chat.empty.text': '你在这里时，大家说的话会出现在这里。',
  'chat.alone': '你是第一个进来的人。把房间链接发给朋友吧。',
  'chat.invite': '复制房间链接',
  'chat.copied': '链接已复制',
  'chat.copy.failed': '房间链接：{link}',
  'chat.leave': '离开',
  'chat.settings': '设置',
  'chat.new': { other: '{count} 条新消息' },
  'chat.latest': '回到最新',
  'chat.unread': '新消息',
  'chat.earlier': '你进来之前的消息',
  'chat.missing': '这里可能缺少一些消息',
  'chat.more': '展开全文',
  'chat.less': '收起',
  'chat.you': '你',
  'line.from': '{name} {time} 说：',
  'line.own': '你 {time} 说：',
  'line.earlier.from': '{name} 之前说：',
  'line.earlier.own': '你之前说：',
  'line.whisper.from': '{name} {time} 悄悄对你说：',
  'line.whisper.own': '你 {time} 悄悄对 {name} 说：',
  'whisper.to': '悄悄对 {name} 说',
  'whisper.tag.in': '悄悄对你说',
  'whisper.tag.out': '悄悄对 {name} 说',
  'whisper.gone': '{name} 现在不在',
  'whisper.stop': '回到公开聊天',
  'whisper.self': '不能对自己说悄悄话。',
  'whisper.absent': '{name} 不在这个房间里。',
  'whisper.who': '要对谁说？请写“/w 名字 内容”。',
  'members.title': '房间成员',
  'members.count': { other: '{count} 人' },
  'members.open': { other: '查看房间成员：{count} 人' },
  'members.close': '关闭成员列表',
  'members.you': '你',
  'members.find': '查找名字',
  'members.none': '没有这个名字的人。',
  'members.more': '还有 {count} 人，输入名字查找。',
  'members.vague': '房间里人太多，进出的人不再一一列出。',
  'members.hint': '点名字可以说悄悄话。',
  'note.joined': { other: '{names}进来了' },
  'note.left': { other: '{names}离开了' },
  'note.back': { other: '{names}离开后又回来了' },
  'note.passed': { other: '{names}来过' },
  'note.people': { other: '{count} 人' },
  'note.entered': '你进入了 {room}',
  'note.again': '离开 {away}后你回来了，其间的消息可能没有显示。',
  'note.resumed': '离开 {away}后你回来了，没有错过任何消息。',
  'away.seconds': { other: '{count} 秒' },
  'away.minutes': { other: '{count} 分钟' },
  'write.label': '消息',
  'write.everyone': '对 {room} 里的所有人说',
  'write.whisper': '悄悄对 {name} 说',
  'write.send': '发送',
  'write.keys': 'Enter 发送，Shift + Enter 换行，/w 名字 说悄悄话。',
  'write.left': '还可输入 {count} 字节',
  'write.over': '超出 {count} 字节',
  'sent.waiting': '等待连接恢复',
  'sent.sending': '正在发送…',
  'sent.again': '服务器正忙，正在重试。',
  'failed.unknown': '连接断开了，可能没有送达。',
  'failed.disconnected': '没有发出：连接已断开。',
  'failed.absent': '没有发出：{name} 不在这个房间里。',
  'failed.long': '没有发出：内容太长。',
  'failed.busy': '没有发出：服务器太忙。',
  'failed.forbidden': '没有发出：不允许这样做。',
  'failed.refused': '服务器没有接受。',
  'failed.retry': '重新发送',
  'failed.discard': '放弃',
  'notice.online': '{name} 来了',
  'notice.many': { other: '来了 {count} 人' },
  'notice.message': '{name} 说',
  'notice.whisper': '{name} 悄悄对你说',
  'notice.close': '关闭',
  'notice.never': '不再提示',
  'notice.off': '已关闭弹出提示，可在设置中打开。',
  'settings.title': '设置',
  'settings.language': '语言',
  'settings.theme': '外观',
  'settings.theme.system': '自动',
  'settings.theme.light': '浅色',
  'settings.theme.dark': '深色',
  'settings.notices': '提示',
  'settings.notices.popup': '页面内弹出提示',
  'settings.notices.popup.text': '有人进来，或有没看到的新消息时。',
  'settings.notices.system': '浏览器通知',
  'settings.notices.system.text': '页面不在前台时。',
  'settings.notices.denied': '浏览器不允许本页发送通知。',
  'settings.close': '完成',
};

/** The words of each language, for the test that compares them. */
export const words = { en, 'zh-CN': zh };

let language = 'en';
let plural = new Intl.PluralRules('en');
const listeners = new Set();

/** The language tag in use: en or zh-CN. */
export function currentLanguage() {
  return language;
}

/** Uses the chosen language, else the browser's. */
export function startLanguage() {
  const wanted = settings.get('language') ?? navigator.languages?.[0] ?? navigator.language ?? 'en';
  useLanguage(/^zh/i.test(wanted) ? 'zh-CN' : 'en');
}

/** Changes the language, remembers it, and translates the page again. */
export function chooseLanguage(tag) {
  settings.set('language', tag);
  useLanguage(tag);
}

function useLanguage(tag) {
  language = tag;
  plural = new Intl.PluralRules(tag);
  document.documentElement.lang = tag;
  translate(document);
  for (const listener of listeners) listener();
}

/** Calls `listener` after each change of language. */
export function onLanguage(listener) {
  listeners.add(listener);
}

function template(key, places) {
  const entry = words[language][key] ?? en[key] ?? key;
  if (typeof entry === 'string') return entry;
  return entry[plural.select(places.count ?? 0)] ?? entry.other;
}

/** The sentence for `key`, its places filled with text. */
export function t(key, places = {}) {
  return template(key, places).replace(/\{(\w+)\}/g, (whole, place) => {
    const value = places[place];
    if (value === undefined) return whole;
    return typeof value === 'number' ? value.toLocaleString(language) : String(value);
  });
}

/** The same as nodes: a place may be a node, and text from people stays text. */
export function tNodes(key, places = {}) {
  const fragment = document.createDocumentFragment();
  for (const part of template(key, places).split(/(\{\w+\})/)) {
    const place = /^\{(\w+)\}$/.exec(part)?.[1];
    const value = place === undefined ? part : (places[place] ?? part);
    fragment.append(typeof value === 'number' ? value.toLocaleString(language) : value);
  }
  return fragment;
}

/** Fills in everything below `root` that has data-t (text), data-t-label, data-t-placeholder. */
export function translate(root) {
  for (const element of root.querySelectorAll('[data-t]')) {
    element.textContent = t(element.dataset.t);
  }
  for (const element of root.querySelectorAll('[data-t-label]')) {
    const label = t(element.dataset.tLabel);
    element.setAttribute('aria-label', label);
    if (element.matches('button, a')) element.title = label;
  }
  for (const element of root.querySelectorAll('[data-t-placeholder]')) {
    element.placeholder = t(element.dataset.tPlaceholder);
  }
}
