// Where something stands in a room, as modern servers tell it: a generation, which is one unbroken
// history of the room, and a number in it.

/** The position that a push or an answer carries; `null` if it carries none. */
export function positionOf(body) {
  const { gen, seq } = body ?? {};
  return Number.isSafeInteger(gen) && Number.isSafeInteger(seq) && gen >= 0 && seq >= 0 ? { gen, seq } : null;
}

/** Whether `left` stands behind `right`. */
export function isAfter(left, right) {
  return left.gen === right.gen ? left.seq > right.seq : left.gen > right.gen;
}
