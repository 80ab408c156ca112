//! A log as a line of text, so that processes that play a room's members between them can hand
//! what each has seen to one judge.

use std::fmt::Write as _;

use super::{End, Event, Log, Name, SessionKey, TextId, To};

impl Log {
    /// Writes down what the session did and saw of messages, in order: everything that
    /// [`Presence::Silent`](super::Presence::Silent) judges. Members, positions and times are not
    /// in it. Some 12 bytes for each message seen.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.events.len() * 12);
        let mut sends = self.sends.iter();
        for event in &self.events {
            let written = match *event {
                Event::Joined => write!(text, "j "),
                Event::Sent => match sends.next() {
                    Some(To::One(name)) => write!(text, "s{} ", name.0),
                    Some(To::Everyone) | None => write!(text, "s "),
                },
                Event::Acked(number) => write!(text, "a{number} "),
                Event::Refused(number) => write!(text, "r{number} "),
                Event::Saw { from, id, whisper } => {
                    let kind = if whisper { 'w' } else { 'm' };
                    write!(text, "{kind}{}.{}.{} ", from.0, id.sender.0, id.number)
                }
                Event::SawForeign => write!(text, "f "),
                Event::SawAdd(name) => write!(text, "+{} ", name.0),
                Event::SawLeave(name) => write!(text, "-{} ", name.0),
                // Goes on as if the connection had not been lost: what was missed has been seen.
                Event::Resumed(_) => Ok(()),
            };
            debug_assert!(written.is_ok(), "a string takes everything");
        }
        text.push(match self.end {
            End::Alive => '.',
            End::Gone => 'g',
            End::Unwatched => 'u',
        });
        text
    }

    /// Has an empty log of the same session do and see what [`Log::to_text`] wrote. Names are told
    /// by their numbers, so both sides must have interned the same, in the same order.
    ///
    /// Returns nothing if the text is no such text.
    #[must_use]
    pub fn replay(mut self, text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let end = words.next_back()?;
        for word in words {
            let rest = word.get(1..)?;
            let number = || rest.parse::<u32>().ok();
            match word.as_bytes()[0] {
                b'j' => self.joined([]),
                b's' if rest.is_empty() => _ = self.sent(To::Everyone),
                b's' => _ = self.sent(To::One(Name(number()?))),
                b'a' => self.acked(number()?),
                b'r' => self.refused(number()?),
                kind @ (b'm' | b'w') => {
                    let (from, id) = saw(rest)?;
                    self.saw(from, id, kind == b'w');
                }
                b'f' => self.saw_foreign(),
                b'+' => self.saw_add(Name(number()?)),
                b'-' => self.saw_leave(Name(number()?)),
                _ => return None,
            }
        }
        match end {
            "." => {}
            "g" => self.gone(),
            "u" => self.unwatched(),
            _ => return None,
        }
        Some(self)
    }
}

/// Who is said to have sent a message, and which one it is.
fn saw(text: &str) -> Option<(Name, TextId)> {
    let mut numbers = text.split('.').map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let (from, sender, number) = (Name(next()?), SessionKey(next()?), next()?);
    Some((from, TextId { sender, number }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_survives_its_way_through_text() {
        let (room, ann, bob) = (Name(0), Name(1), Name(2));
        let id = TextId { sender: SessionKey(7), number: 3 };
        let mut log = Log::new(room, ann);
        log.joined([ann, bob]);
        assert_eq!((log.sent(To::Everyone), log.sent(To::One(bob))), (1, 2));
        log.saw(bob, id, true);
        log.acked(1);
        log.refused(2);
        log.saw(ann, TextId { sender: SessionKey(0), number: 1 }, false);
        log.saw_foreign();
        log.saw_add(bob);
        log.saw_leave(bob);
        log.gone();
        let text = log.to_text();
        assert_eq!(text, "j s s2 w2.7.3 a1 r2 m1.0.1 f +2 -2 g");
        let copy = Log::new(room, ann).replay(&text).unwrap();
        assert_eq!((&copy.events, &copy.sends, copy.end), (&log.events, &log.sends, log.end));
        assert_eq!(copy.to_text(), text);
    }

    #[test]
    fn nonsense_is_no_log() {
        for text in ["", "j", "x .", "a .", "m1.2 .", "j  .", "ä ."] {
            assert!(Log::new(Name(0), Name(1)).replay(text).is_none(), "{text:?}");
        }
        assert!(Log::new(Name(0), Name(1)).replay(".").is_some());
    }
}
