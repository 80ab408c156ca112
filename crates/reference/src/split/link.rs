//! What goes between a connector and the owner of its rooms, and how.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
};

use prost::Message;
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    fd::OwnedFd,
};

/// The speaker of a message that is no client of the connector that is told.
pub(crate) const NOBODY: u32 = u32::MAX;

/// Bytes of a message's length at most.
const LENGTH_BYTES_MAX: usize = 10;

/// What a connector tells the owner.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Up {
    /// The connector's own number of the room; a room is new to it with the next one.
    #[prost(uint32, tag = "1")]
    pub(crate) room: u32,
    /// The connector's own number of the client.
    #[prost(uint32, tag = "2")]
    pub(crate) client: u32,
    /// The client's request.
    #[prost(uint64, tag = "3")]
    pub(crate) id: u64,
    #[prost(oneof = "Asked", tags = "4, 5, 6")]
    pub(crate) asked: Option<Asked>,
}

/// What happened at a connector.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Asked {
    #[prost(message, tag = "4")]
    Enter(Enter),
    /// The push, as clients get it.
    #[prost(bytes, tag = "5")]
    Say(Vec<u8>),
    /// The name of who left.
    #[prost(string, tag = "6")]
    Leave(String),
}

/// Who enters which room.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Enter {
    #[prost(string, tag = "1")]
    pub(crate) user: String,
    #[prost(string, tag = "2")]
    pub(crate) room: String,
}

/// What the owner tells a connector.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Down {
    #[prost(uint32, tag = "1")]
    pub(crate) room: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) client: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) id: u64,
    #[prost(oneof = "Told", tags = "4, 5, 6, 7")]
    pub(crate) told: Option<Told>,
}

/// What a connector has to pass on.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Told {
    /// To who asked: the members.
    #[prost(message, tag = "4")]
    Entered(Names),
    /// To all members: a push, with the reply to who said it.
    #[prost(bytes, tag = "5")]
    Said(Vec<u8>),
    /// To all members: who came in.
    #[prost(string, tag = "6")]
    Added(String),
    /// To itself: where all connectors listen.
    #[prost(message, tag = "7")]
    Connectors(Names),
}

/// Names of users, or addresses.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Names {
    #[prost(string, repeated, tag = "1")]
    pub(crate) names: Vec<String>,
}

/// One end of the socket between both.
pub(crate) struct Link {
    stream: UnixStream,
    number: EventData,
    /// The beginning of a message.
    input: Vec<u8>,
    output: Vec<u8>,
    awaits_space: bool,
}

impl Link {
    /// Watches a socket, under this number.
    ///
    /// # Errors
    ///
    /// If it cannot be watched.
    pub(crate) fn new(stream: UnixStream, epoll: &OwnedFd, number: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let number = EventData::new_u64(number);
        epoll::add(epoll, &stream, number, EventFlags::IN)?;
        Ok(Self { stream, number, input: Vec::new(), output: Vec::new(), awaits_space: false })
    }

    /// Adds to what the next flush writes.
    pub(crate) fn push(&mut self, message: &impl Message) {
        // Memory takes what is written.
        let _ = message.encode_length_delimited(&mut self.output);
    }

    /// Writes what has gathered, as far as the socket takes it. That the other end is gone, the next
    /// read tells.
    ///
    /// # Errors
    ///
    /// If the socket cannot be watched.
    pub(crate) fn flush(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        if !self.output.is_empty() {
            let written = self.stream.write(&self.output).unwrap_or(0);
            self.output.drain(..written);
        }
        if self.awaits_space == self.output.is_empty() {
            self.awaits_space = !self.awaits_space;
            let space = if self.awaits_space { EventFlags::OUT } else { EventFlags::empty() };
            epoll::modify(epoll, &self.stream, self.number, EventFlags::IN | space)?;
        }
        Ok(())
    }

    /// Reads what has come.
    ///
    /// # Errors
    ///
    /// If the other end is gone, or says what is no message.
    pub(crate) fn read<M: Message + Default>(&mut self, scratch: &mut [u8]) -> io::Result<Vec<M>> {
        match self.stream.read(scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.input.extend_from_slice(&scratch[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let (mut messages, mut rest) = (Vec::new(), self.input.as_slice());
        while let Some((message, after)) = cut(rest)? {
            messages.push(M::decode(message)?);
            rest = after;
        }
        let used = self.input.len() - rest.len();
        self.input.drain(..used);
        Ok(messages)
    }
}

/// One whole message, and what comes after it, if all of it has come.
fn cut(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let mut rest = bytes;
    match prost::decode_length_delimiter(&mut rest) {
        Ok(length) => Ok(rest.split_at_checked(length)),
        Err(_) if bytes.len() < LENGTH_BYTES_MAX => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let mut one = Link::new(one, &epoll, 0).unwrap();
        let mut other = Link::new(other, &epoll, 1).unwrap();
        let said =
            |length| Up { room: 1, client: 2, id: 3, asked: Some(Asked::Say(vec![7; length])) };
        let all = [said(0), said(300), said(1)];
        for message in &all {
            one.push(message);
        }
        one.flush(&epoll).unwrap();
        let mut heard: Vec<Up> = Vec::new();
        while heard.len() < all.len() {
            heard.extend(other.read(&mut [0; 100]).unwrap());
        }
        assert_eq!(heard, all);
        assert!(other.read::<Up>(&mut [0; 100]).unwrap().is_empty(), "nothing more has come");
        drop(one);
        assert!(other.read::<Up>(&mut [0; 100]).is_err());
        assert!(cut(&[0xff; 9]).unwrap().is_none() && cut(&[0xff; 10]).is_err(), "no length");
    }

    #[test]
    fn what_the_socket_does_not_take_waits_for_space() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let mut one = Link::new(one, &epoll, 0).unwrap();
        let mut other = Link::new(other, &epoll, 1).unwrap();
        let said = Up { asked: Some(Asked::Say(vec![7; 1 << 20])), ..Up::default() };
        one.push(&said);
        one.flush(&epoll).unwrap();
        assert!(one.awaits_space);
        let mut heard: Vec<Up> = Vec::new();
        while heard.is_empty() {
            heard.extend(other.read(&mut [0; 4096]).unwrap());
            one.flush(&epoll).unwrap();
        }
        assert_eq!((heard, one.awaits_space), (vec![said], false));
    }
}
