//! What waits for a client that polls, and the poll that waits for something to say.

use std::time::Duration;

use bytes::Bytes;
use model::{Time, limits};
use wire::socketio::{v1, v09};

use crate::{CloseReason, Protocol};

/// How long a poll hangs while the client tries a WebSocket: it moves there once no poll is
/// under way any more. The original's interval.
const PROBING: Duration = Duration::from_millis(100);

/// Frames or packets for a client that polls, and its poll, if one hangs. `P` stands for the
/// poll: whoever holds it can answer it once.
///
/// A client that does not come for what waits is a slow reader.
#[derive(Debug)]
pub struct Polls<P> {
    protocol: Protocol,
    /// How long a poll hangs with nothing to say, if there is a limit.
    hang: Option<Duration>,
    packets_max: usize,
    bytes_max: usize,
    packets: Vec<Bytes>,
    bytes: usize,
    waiting: Option<(P, Time)>,
    /// Since when the client has given its poll up and not come back.
    away: Option<Time>,
    is_probing: bool,
}

/// What a poll is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<P> {
    /// Which poll.
    pub poll: P,
    /// With what; never nothing.
    pub packets: Vec<Bytes>,
}

impl<P> Polls<P> {
    /// Nothing waits. `hang` is how long a poll of Socket.IO 0.9 hangs with nothing to say.
    #[must_use]
    pub const fn new(protocol: Protocol, hang: Duration, frames: usize, bytes: usize) -> Self {
        let hang = match protocol {
            Protocol::SocketIo09 => Some(hang),
            // Its client pings, and the answer ends the poll.
            Protocol::SocketIo1 | Protocol::Pomelo => None,
        };
        Self {
            protocol,
            hang,
            packets_max: frames,
            bytes_max: bytes,
            packets: Vec::new(),
            bytes: 0,
            waiting: None,
            away: None,
            is_probing: false,
        }
    }

    /// Takes a poll. A poll that hangs already is answered with nothing to do: its client has
    /// given it up, or asks twice for what it can get once.
    #[must_use]
    pub fn poll(&mut self, now: Time, poll: P) -> Option<Answer<P>> {
        let released = self.release();
        self.away = None;
        self.waiting = Some((poll, now));
        released
    }

    /// Adds a frame or packet. A lone one may be of any size.
    ///
    /// # Errors
    ///
    /// If too many wait, or too large ones, for a client that does not come for them.
    pub fn add(&mut self, packet: Bytes) -> Result<(), CloseReason> {
        let is_full =
            self.packets.len() >= self.packets_max || self.bytes + packet.len() > self.bytes_max;
        if is_full && !self.packets.is_empty() {
            return Err(CloseReason::SlowReader);
        }
        self.bytes += packet.len();
        self.packets.push(packet);
        Ok(())
    }

    /// Answers the poll that hangs with all that waits, if there are both.
    #[must_use]
    pub fn answer(&mut self) -> Option<Answer<P>> {
        if self.packets.is_empty() {
            return None;
        }
        let (poll, _) = self.waiting.take()?;
        Some(Answer { poll, packets: self.take() })
    }

    /// Puts back what could not be said: the client of that poll was gone.
    pub fn put_back(&mut self, mut packets: Vec<Bytes>) {
        self.bytes += packets.iter().map(Bytes::len).sum::<usize>();
        packets.append(&mut self.packets);
        self.packets = packets;
    }

    /// All that waits, to be said some other way.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.packets)
    }

    /// The poll that hangs.
    pub fn hanging(&mut self) -> Option<&mut P> {
        self.waiting.as_mut().map(|(poll, _)| poll)
    }

    /// The client has given up the poll that hangs. One of Socket.IO 0.9 may come back, as it may
    /// to the original: libraries give up polls just to do something else.
    pub fn give_up(&mut self, now: Time) {
        self.waiting = None;
        self.away = Some(now);
    }

    /// Whether the client has left: it gave a poll up, and did not come back if it might have.
    #[must_use]
    pub fn is_gone(&self, now: Time) -> bool {
        self.away.is_some_and(|since| now >= since + self.stay_away())
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The client tries a WebSocket, or has stopped to.
    pub fn probing(&mut self, is_probing: bool) {
        self.is_probing = is_probing;
    }

    /// Adds the last word of a session that ends for this reason.
    pub fn close(&mut self, reason: CloseReason) {
        let said = matches!(
            reason,
            CloseReason::ClientLeft
                | CloseReason::WentAway
                | CloseReason::Kicked
                | CloseReason::Attack
                | CloseReason::Superseded
                | CloseReason::Replaced
        );
        match self.protocol {
            Protocol::SocketIo09 if !said => self.packets.push(v09::DISCONNECT),
            Protocol::SocketIo1 if !said => self.packets.push(v1::CLOSE),
            Protocol::SocketIo09 | Protocol::SocketIo1 | Protocol::Pomelo => {}
        }
    }

    /// When to call [`Polls::timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let Some((_, since)) = &self.waiting else {
            return self.away.map(|since| since + self.stay_away());
        };
        let hang = if self.is_probing { Some(PROBING) } else { self.hang };
        hang.map(|hang| *since + hang)
    }

    /// Answers a poll that has hung for long enough with nothing to do.
    #[must_use]
    pub fn timeout(&mut self, now: Time) -> Option<Answer<P>> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        self.release()
    }

    /// Answers the poll that hangs, if there is one, with nothing to do.
    #[must_use]
    pub fn release(&mut self) -> Option<Answer<P>> {
        let (poll, _) = self.waiting.take()?;
        Some(Answer { poll, packets: vec![self.noop()] })
    }

    const fn stay_away(&self) -> Duration {
        match self.protocol {
            Protocol::SocketIo09 => limits::SOCKETIO_RETURN,
            Protocol::SocketIo1 | Protocol::Pomelo => Duration::ZERO,
        }
    }

    fn noop(&self) -> Bytes {
        match self.protocol {
            Protocol::SocketIo09 => v09::NOOP,
            Protocol::SocketIo1 | Protocol::Pomelo => v1::NOOP,
        }
    }
}

// A poll that hangs must end before the client counts as gone.
const _: () = assert!(limits::SOCKETIO_POLL.as_millis() < limits::SOCKETIO_PATIENCE.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn polls(protocol: Protocol) -> Polls<u32> {
        Polls::new(protocol, Duration::from_secs(20), 3, 10)
    }

    fn packet(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_poll_hangs_until_there_is_something_to_say() {
        let mut polls = polls(Protocol::SocketIo1);
        assert_eq!(polls.poll(at(0), 1), None);
        assert_eq!(polls.answer(), None);
        assert_eq!(polls.poll_timeout(), None);
        polls.add(packet("40")).unwrap();
        polls.add(packet("3")).unwrap();
        let packets = vec![packet("40"), packet("3")];
        assert_eq!(polls.answer(), Some(Answer { poll: 1, packets }));
        assert_eq!(polls.answer(), None);
    }

    #[test]
    fn a_poll_of_the_first_generation_ends_with_nothing_after_a_while() {
        let mut polls = polls(Protocol::SocketIo09);
        assert_eq!(polls.poll(at(5), 1), None);
        assert_eq!(polls.poll_timeout(), Some(at(20_005)));
        assert_eq!(polls.timeout(at(20_004)), None);
        let packets = vec![v09::NOOP];
        assert_eq!(polls.timeout(at(20_005)), Some(Answer { poll: 1, packets }));
        assert_eq!(polls.poll_timeout(), None);
    }

    #[test]
    fn a_client_of_the_first_generation_may_give_polls_up() {
        let mut polls = polls(Protocol::SocketIo09);
        assert_eq!(polls.poll(at(0), 1), None);
        polls.give_up(at(100));
        assert!(!polls.is_gone(at(5_099)));
        polls.add(packet("3:::hi")).unwrap();
        assert_eq!(polls.answer(), None);
        assert_eq!(polls.poll(at(5_099), 2), None);
        assert_eq!(polls.answer(), Some(Answer { poll: 2, packets: vec![packet("3:::hi")] }));
        assert_eq!((polls.is_gone(at(9_999)), polls.poll_timeout()), (false, None));

        assert_eq!(polls.poll(at(10_000), 3), None);
        polls.give_up(at(10_100));
        assert_eq!(polls.poll_timeout(), Some(at(15_100)));
        assert_eq!(polls.timeout(at(15_100)), None);
        assert!(polls.is_gone(at(15_100)));
    }

    #[test]
    fn a_client_of_the_second_generation_leaves_by_giving_a_poll_up() {
        let mut polls = polls(Protocol::SocketIo1);
        assert_eq!(polls.poll(at(0), 1), None);
        polls.give_up(at(100));
        assert!(polls.is_gone(at(100)));
    }

    #[test]
    fn a_second_poll_releases_the_first() {
        let mut polls = polls(Protocol::SocketIo1);
        assert_eq!(polls.poll(at(0), 1), None);
        let released = polls.poll(at(1), 2);
        assert_eq!(released, Some(Answer { poll: 1, packets: vec![v1::NOOP] }));
        polls.add(packet("3")).unwrap();
        assert_eq!(polls.answer().unwrap().poll, 2);
    }

    #[test]
    fn while_a_websocket_is_tried_polls_hang_for_a_moment_only() {
        let mut polls = polls(Protocol::SocketIo1);
        polls.probing(true);
        assert_eq!(polls.poll(at(0), 1), None);
        assert_eq!(polls.poll_timeout(), Some(at(100)));
        assert_eq!(polls.timeout(at(100)), Some(Answer { poll: 1, packets: vec![v1::NOOP] }));
        polls.probing(false);
        assert_eq!(polls.poll(at(200), 2), None);
        assert_eq!(polls.poll_timeout(), None);
    }

    #[test]
    fn what_nobody_comes_for_is_bounded() {
        let mut polls = polls(Protocol::SocketIo1);
        polls.add(Bytes::from(vec![b'4'; 50])).unwrap();
        assert_eq!(polls.add(packet("3")), Err(CloseReason::SlowReader));
        assert_eq!(polls.take().len(), 1);
        for _ in 0..3 {
            polls.add(packet("3")).unwrap();
        }
        assert_eq!(polls.add(packet("3")), Err(CloseReason::SlowReader));
    }

    #[test]
    fn what_could_not_be_said_is_said_first() {
        let mut polls = polls(Protocol::SocketIo1);
        assert_eq!(polls.poll(at(0), 1), None);
        polls.add(packet("a")).unwrap();
        let answer = polls.answer().unwrap();
        polls.add(packet("b")).unwrap();
        polls.put_back(answer.packets);
        assert_eq!(polls.take(), [packet("a"), packet("b")]);
    }

    #[test]
    fn the_last_word_tells_clients_that_do_not_know() {
        let last = |protocol, reason| {
            let mut polls = polls(protocol);
            polls.close(reason);
            polls.take()
        };
        assert_eq!(last(Protocol::SocketIo09, CloseReason::Draining), [v09::DISCONNECT]);
        assert_eq!(last(Protocol::SocketIo1, CloseReason::Draining), [v1::CLOSE]);
        assert!(last(Protocol::SocketIo1, CloseReason::Kicked).is_empty());
        assert!(last(Protocol::SocketIo09, CloseReason::ClientLeft).is_empty());
    }
}
