// The other tabs of this browser. One that is duplicated remembers all that the first does, and
// must not take its place in the room.

const CHANNEL = 'tangelo.rooms';
/**
 * How long the others may take to answer. Only who may be a copy waits for it, or comes back after a
 * crash: too short would take the first one's place where a busy browser is slow.
 */
const ANSWER_MS = 1500;

export class Tabs {
  #channel = null;
  #asked = new Map();
  #isHere;

  /** `isHere(name, room)`: whether this tab is in that room under that name. */
  constructor(isHere) {
    this.#isHere = isHere;
    try {
      this.#channel = new BroadcastChannel(CHANNEL);
      this.#channel.onmessage = ({ data }) => this.#hear(data ?? {});
    } catch {
      // Old browsers have none: there, the last one that comes has the place.
    }
  }

  /** Resolves with whether another tab is in that room under that name. */
  isElsewhere(name, room) {
    if (!this.#channel) return Promise.resolve(false);
    const id = `${Math.random()}`;
    return new Promise((resolve) => {
      const settle = (is) => {
        clearTimeout(timer);
        this.#asked.delete(id);
        resolve(is);
      };
      const timer = setTimeout(settle, ANSWER_MS, false);
      this.#asked.set(id, settle);
      this.#channel.postMessage({ asks: id, name, room });
    });
  }

  /** Hears and says nothing any more. */
  close() {
    this.#channel?.close();
  }

  #hear({ asks, answers, name, room }) {
    if (asks !== undefined && this.#isHere(name, room)) this.#channel.postMessage({ answers: asks });
    this.#asked.get(answers)?.(true);
  }
}
