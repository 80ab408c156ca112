//! What clients speak, as an argument.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use client::Transport;

/// Every one of them.
const ALL: &str = "all";

/// What clients speak and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All the same.
    One(Transport),
    /// One after the other.
    All,
}

impl Choice {
    /// What is to be measured, in order.
    pub(super) fn transports(self) -> Vec<Transport> {
        match self {
            Self::One(transport) => vec![transport],
            Self::All => Transport::ALL.to_vec(),
        }
    }
}

/// Reads the short names of transports.
pub(super) fn parser() -> impl TypedValueParser<Value = Choice> {
    let one = |transport: Transport| {
        let value = PossibleValue::new(transport.name()).help(help(transport));
        match transport.name().strip_prefix("pomelo-") {
            // What these were called when there was nothing else.
            Some(short) => value.alias(short),
            None => value,
        }
    };
    let all = PossibleValue::new(ALL).help("One after the other");
    let values = Transport::ALL.into_iter().map(one).chain([all]);
    PossibleValuesParser::new(values).map(|name| choice(&name))
}

/// The choice of one of the possible values.
fn choice(name: &str) -> Choice {
    let short = |it: &Transport| it.name().strip_prefix("pomelo-") == Some(name);
    let found = Transport::ALL.into_iter().find(|it| it.name() == name || short(it));
    found.map_or(Choice::All, Choice::One)
}

const fn help(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSocket => "The binary protocol over WebSocket",
        Transport::Tcp => "The binary protocol over TCP",
        Transport::Browser => "The same over WebSocket as the browser library has it, in CESU-8",
        Transport::SocketIo09WebSocket => "Socket.IO 0.9 over WebSocket",
        Transport::SocketIo09Xhr => "Socket.IO 0.9 by requests that hang",
        Transport::SocketIo09Jsonp => "Socket.IO 0.9 by scripts and forms",
        Transport::SocketIo09HtmlFile => "Socket.IO 0.9 by an endless page",
        Transport::SocketIo1WebSocket => "Socket.IO 1.x over WebSocket",
        Transport::SocketIo1Polling => "Socket.IO 1.x by requests that hang, binary payloads",
        Transport::SocketIo1PollingText => "Socket.IO 1.x by requests that hang, payloads of text",
        Transport::SocketIo1Upgrade => "Socket.IO 1.x by requests, then over WebSocket",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_has_a_name() {
        for transport in Transport::ALL {
            assert_eq!(choice(transport.name()), Choice::One(transport));
        }
        assert_eq!(choice("ws"), Choice::One(Transport::WebSocket));
        assert_eq!(choice("tcp"), Choice::One(Transport::Tcp));
        assert_eq!(choice("all").transports(), Transport::ALL);
    }
}
