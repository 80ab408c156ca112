//! What several clients hear, encoded once.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};
/// The opcode of a text message in one frame.
pub(crate) const TEXT: OpCode = OpCode::Data(Data::Text);
/// The opcode of a binary message in one frame.
pub(crate) const BINARY: OpCode = OpCode::Data(Data::Binary);

/// How a client's units become bytes, so that receivers of one form share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// One after the other.
    Stream,
    /// Each in a binary message of WebSocket.
    Binary,
    /// Each in a text message of WebSocket.
    Text,
    /// One by one: what carries them changes, or they are joined as they leave.
    Units,
}

/// Pushes in order, as clients of one form and dialect hear them.
#[derive(Debug)]
pub struct Run {
    form: Form,
    /// All of them with their headers; nothing in the form of units.
    bytes: Bytes,
    /// Where each ends. One that this dialect cannot say ends where it begins.
    ends: Vec<usize>,
    /// In the form of units, each.
    units: Vec<Option<Bytes>>,
    frames: usize,
}

/// The answer to a `send` that one of the pushes carries out.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The number of that push in its [`Run`].
    pub push: usize,
    /// The answer, encoded in the session's dialect; nothing if the client wants none.
    pub unit: Option<Bytes>,
}

impl Run {
    /// Puts units together. `None` is what clients of this dialect hear nothing of.
    pub fn new(form: Form, pushes: impl Iterator<Item = Option<Bytes>>) -> Self {
        let (mut bytes, mut ends, mut units) = (Vec::new(), Vec::new(), Vec::new());
        let mut frames = 0;
        for unit in pushes {
            frames += usize::from(unit.is_some());
            if let Some(unit) = &unit
                && form != Form::Units
            {
                frame(form, unit, &mut bytes);
            }
            ends.push(bytes.len());
            if form == Form::Units {
                units.push(unit);
            }
        }
        Self { form, bytes: bytes.into(), ends, units, frames }
    }

    /// How many frames a client hears that hears all from this push on.
    #[must_use]
    pub fn frames(&self, from: usize) -> usize {
        if from == 0 {
            return self.frames;
        }
        let said = |number: usize| match self.form {
            Form::Units => self.units.get(number).is_some_and(Option::is_some),
            Form::Stream | Form::Binary | Form::Text => self.begin(number + 1) > self.begin(number),
        };
        (from..self.ends.len()).filter(|number| said(*number)).count()
    }

    /// What it is for.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn units(&self) -> &[Option<Bytes>] {
        &self.units
    }

    /// The bytes from a push on, and how many frames that is.
    fn part(&self, from: usize) -> (Bytes, usize) {
        (self.bytes.slice(self.begin(from)..), self.frames(from))
    }

    /// The bytes from a push on with those of answers among them, each right before its push or
    /// right after it, and how many frames that is. The answers are in the order of the pushes.
    pub(crate) fn with(
        &self,
        from: usize,
        answers: &[Answer],
        reply_first: bool,
    ) -> (Bytes, usize) {
        if answers.is_empty() {
            return self.part(from);
        }
        let units = answers.iter().filter_map(|answer| Some((answer.push, answer.unit.as_ref()?)));
        let (mut bytes, mut frames) = (Vec::new(), self.frames(from));
        let mut done = self.begin(from);
        for (push, unit) in units {
            let end = self.begin(push + usize::from(!reply_first));
            bytes.extend_from_slice(&self.bytes[done..end]);
            frame(self.form, unit, &mut bytes);
            (frames, done) = (frames + 1, end);
        }
        bytes.extend_from_slice(&self.bytes[done..]);
        (bytes.into(), frames)
    }

    /// Where this push begins.
    fn begin(&self, push: usize) -> usize {
        push.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }
}

/// Appends a unit in the way of its form.
pub(crate) fn frame(form: Form, unit: &[u8], out: &mut Vec<u8>) {
    match form {
        Form::Stream | Form::Units => {}
        Form::Binary => header(BINARY, unit.len(), out),
        Form::Text => header(TEXT, unit.len(), out),
    }
    out.extend_from_slice(unit);
}

/// Appends the header of a frame; a server's has no mask.
pub(crate) fn header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Memory takes what is written.
    let _ = header.format(length as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_grow_with_the_length() {
        for (length, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 255, 255]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            header(BINARY, length, &mut out);
            assert_eq!(out, head);
        }
    }

    #[test]
    fn answers_stand_beside_their_pushes() {
        let unit = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let run = Run::new(Form::Text, [unit("a"), None, unit("bc"), unit("")].into_iter());
        assert_eq!(&run.part(0).0[..], b"\x81\x01a\x81\x02bc\x81\x00");
        assert_eq!((0..4).map(|push| run.begin(push)).collect::<Vec<_>>(), [0, 3, 3, 7]);
        assert_eq!(run.frames(0), 3);
        assert_eq!(run.part(1), (Bytes::from_static(b"\x81\x02bc\x81\x00"), 2));
        assert_eq!(run.part(3), (Bytes::from_static(b"\x81\x00"), 1));
        assert_eq!(run.part(4), (Bytes::new(), 0));
        let answers =
            [(0, "r"), (1, "s"), (3, "t")].map(|(push, text)| Answer { push, unit: unit(text) });
        let first = b"\x81\x01r\x81\x01a\x81\x01s\x81\x02bc\x81\x01t\x81\x00";
        assert_eq!(run.with(0, &answers, true), (Bytes::from_static(first), 6));
        let last = b"\x81\x01a\x81\x01r\x81\x01s\x81\x02bc\x81\x00\x81\x01t";
        assert_eq!(run.with(0, &answers, false), (Bytes::from_static(last), 6));
        let (bytes, frames) = run.with(0, &[Answer { push: 2, unit: None }], true);
        assert_eq!((bytes, frames), run.part(0));
    }
}
