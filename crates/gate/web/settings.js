// What this browser remembers of a person. Storage may be forbidden or full: then it forgets.

const PREFIX = 'tangelo.';

function access(storage, action) {
  try {
    return action(globalThis[storage]);
  } catch {
    return null;
  }
}

function box(storage) {
  return {
    get: (key) => access(storage, (store) => store.getItem(PREFIX + key)),
    /** Whether it is remembered, or forgotten if it is null. */
    set: (key, value) =>
      access(storage, (store) => {
        if (value === null) store.removeItem(PREFIX + key);
        else store.setItem(PREFIX + key, value);
        return true;
      }) ?? false,
  };
}

/** Kept for this browser: name, room, theme, language, notices, notifications. */
export const settings = box('localStorage');
/** Kept for this tab until it is closed: the room we are in, and an unsent draft. */
export const tab = box('sessionStorage');

/** light, dark or system. */
export function theme() {
  const chosen = settings.get('theme');
  return chosen === 'light' || chosen === 'dark' ? chosen : 'system';
}

export function setTheme(chosen) {
  settings.set('theme', chosen === 'system' ? null : chosen);
  document.dispatchEvent(new Event('tangelo-theme'));
}
