//! Makes a recording playable: says of each request where it goes and of each answer what it
//! answers, and puts what a proxy saw of a browser into the words of the other recorders.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    exchange::{Headers, Reply},
    play::GATE_PORT,
    record::{Closer, Line, Payload, Transport, What},
    socketio,
};

/// The one scripted connection whose client sent a Close frame that the recorder did not note.
const CLOSES_BY_FRAME: &str = "ws-close-frame";
/// With which code it did, as the answer shows.
const GOING_AWAY: u16 = 1001;

/// Adds what the recorder did not write down.
pub(super) fn prepare(recorded: Vec<Line>) -> Vec<Line> {
    let mut script = Script::new(&recorded);
    for (at, line) in recorded.iter().enumerate() {
        script.line(at, line.clone());
    }
    script.lines
}

#[derive(Default)]
struct Script<'a> {
    recorded: &'a [Line],
    lines: Vec<Line>,
    /// Where each connection goes.
    ports: BTreeMap<String, u16>,
    /// A browser's connections: these are seldom closed by either side's intent.
    pages: BTreeSet<String>,
    sockets: BTreeSet<String>,
    /// Lines of requests that are not answered yet, per connection.
    pending: BTreeMap<String, Vec<usize>>,
    /// Session ids given out, and the connection that polled with each first.
    sids: BTreeMap<String, Option<String>>,
}

impl<'a> Script<'a> {
    fn new(recorded: &'a [Line]) -> Self {
        let mut script = Self { recorded, ..Self::default() };
        for line in recorded {
            let name = &line.connection;
            if let What::Open { port, .. } = line.what {
                script.ports.entry(name.clone()).or_insert(port);
            }
            // The proxy names connections by the port.
            let port = name.split_once('-').and_then(|(port, _)| port.parse().ok());
            if let Some(port) = port {
                script.ports.insert(name.clone(), port);
                script.pages.insert(name.clone());
            }
        }
        script
    }

    fn port(&self, connection: &str) -> u16 {
        self.ports.get(connection).copied().unwrap_or(GATE_PORT)
    }

    fn push(&mut self, line: &Line, what: What) {
        self.lines.push(Line { what, ..line.clone() });
    }

    fn line(&mut self, at: usize, line: Line) {
        let is_page = self.pages.contains(&line.connection);
        match &line.what {
            What::Request(request) if request.headers.get("upgrade").is_some() => {
                let port = self.port(&line.connection);
                let told = request.headers.iter().filter(|(name, _)| *name != "upgrade");
                let headers = Headers::all(told);
                let (transport, path) = (Transport::WebSocket, request.target.clone());
                self.sockets.insert(line.connection.clone());
                self.push(&line, What::Open { transport, port, path, headers });
            }
            What::Request(_) => self.request(line),
            What::Answer { reply: Some(Reply { status: 101, .. }), .. } => {}
            What::Answer { .. } => self.answer(line),
            What::CloseFrame { by_client: true, code } => {
                let answer = self.recorded[at..].iter().find_map(|later| {
                    let What::CloseFrame { by_client: false, code } = later.what else {
                        return None;
                    };
                    if later.connection == line.connection { code } else { None }
                });
                let by = Closer::ClientFrame(*code);
                self.push(&line, What::Closed { by, code: answer.or(Some(1006)) });
            }
            What::CloseFrame { by_client: false, .. } => {}
            What::Fin if is_page => {}
            What::Closed { by, code } => {
                let by = self.closer(&line.connection, *by);
                let code = *code;
                self.push(&line, What::Closed { by, code });
            }
            What::Send(Payload::Text(text)) if text.starts_with("GET ") => {
                self.raw(&line, text);
                self.lines.push(line);
            }
            What::Open { .. } => {
                self.sockets.insert(line.connection.clone());
                self.lines.push(line);
            }
            What::Send(_)
            | What::Receive(_)
            | What::Handshake { .. }
            | What::Fin
            | What::NoResponse(_)
            | What::StillOpen
            | What::Withheld(_)
            | What::Remark => self.lines.push(line),
        }
    }

    /// A request in raw bytes: its connection was not noted, nor was how it got its session.
    fn raw(&mut self, line: &Line, text: &str) {
        if !self.sockets.insert(line.connection.clone()) {
            return;
        }
        let host = text.lines().find_map(|line| line.strip_prefix("Host: "));
        let port = host.and_then(|host| host.split_once(':')?.1.parse().ok());
        let port = port.unwrap_or(GATE_PORT);
        if let Some(sid) = socketio::sid_in_target(text.split(' ').nth(1).unwrap_or_default())
            && !self.sids.contains_key(sid)
        {
            self.push(line, What::Handshake { port, sid: sid.to_owned() });
        }
        let (transport, path) = (Transport::Tcp, String::new());
        self.push(line, What::Open { transport, port, path, headers: Headers::default() });
    }

    fn request(&mut self, mut line: Line) {
        let port = self.port(&line.connection);
        let place = self.lines.len();
        let What::Request(request) = &mut line.what else {
            return;
        };
        request.port = port;
        request.line = place;
        self.pending.entry(line.connection.clone()).or_default().push(place);
        let is_poll = request.method == "GET" && !request.target.contains("disconnect");
        let sid = socketio::sid_in_target(&request.target).filter(|_| is_poll);
        if let Some(poller) = sid.and_then(|sid| self.sids.get_mut(sid)) {
            request.is_poll = true;
            // All polls of a session are told under one name, whatever carried each.
            line.connection = poller.get_or_insert(line.connection).clone();
        }
        self.lines.push(line);
    }

    fn answer(&mut self, mut line: Line) {
        let What::Answer { to, reply } = &mut line.what else {
            return;
        };
        let Some(pending) = self.pending.get_mut(&line.connection) else {
            return;
        };
        // A poll and another request may be under way at once: their answers cannot be mistaken.
        let is_short =
            reply.as_ref().is_none_or(|reply| matches!(&*reply.body, b"" | b"1" | b"ok"));
        let is_its = |line: &usize| {
            let What::Request(request) = &self.lines[*line].what else {
                return false;
            };
            request.is_poll != is_short
        };
        let place = pending.iter().position(is_its).unwrap_or(0);
        if pending.is_empty() {
            return;
        }
        *to = pending.remove(place);
        let asked = &mut self.lines[*to];
        line.connection.clone_from(&asked.connection);
        if let (What::Request(request), Some(reply)) = (&mut asked.what, reply) {
            request.only_type = reply.only_type;
            if !request.is_poll
                && let Some(sid) = socketio::sid_in_answer(&request.target, &reply.body)
            {
                self.sids.insert(sid.clone(), None);
                request.sid = Some(sid);
            }
        }
        self.lines.push(line);
    }

    /// Who ended it, where the recorder says otherwise or too little.
    fn closer(&self, connection: &str, by: Closer) -> Closer {
        if connection == CLOSES_BY_FRAME {
            return Closer::ClientFrame(Some(GOING_AWAY));
        }
        // The server of Socket.IO 0.9 ends a connection after answering `0::` with the same.
        let is_heard = |line: &&Line| line.connection == connection;
        let last = self.lines.iter().rev().find(is_heard);
        let goodbye = What::Receive(Payload::Text("0::".to_owned()));
        if last.is_some_and(|line| line.what == goodbye) { Closer::Server } else { by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "i7mEnxZIIXTbZu2jAAAA";

    fn script(lines: &[&str]) -> Vec<What> {
        let parse = |(at, line): (usize, &&str)| {
            let line = line.replace("SID", SID);
            Line::parse(&format!(r#"{{"t_ms":{at},{line}}}"#)).unwrap()
        };
        let recorded = lines.iter().enumerate().map(parse).collect();
        prepare(recorded).into_iter().map(|line| line.what).collect()
    }

    fn is_answered(script: &[What], answer: usize) -> Option<usize> {
        let What::Answer { to, .. } = script[answer] else {
            return None;
        };
        Some(to)
    }

    #[test]
    fn answers_are_found_where_a_poll_waits() {
        let script = script(&[
            r#""dir":"c2s","conn":"a","http":"GET /socket.io/1/?t=1""#,
            r#""dir":"s2c","conn":"a","http":"200 text/plain","text":"SID:60:60:xhr-polling""#,
            r#""dir":"c2s","conn":"a","http":"GET /socket.io/1/xhr-polling/SID?t=2""#,
            r#""dir":"c2s","conn":"a","http":"POST /socket.io/1/xhr-polling/SID?t=3","text":"x""#,
            r#""dir":"s2c","conn":"a","http":"200 text/plain","text":"1""#,
            r#""dir":"s2c","conn":"a","http":"200 text/plain","text":"1::""#,
        ]);
        let What::Request(handshake) = &script[0] else { panic!() };
        assert_eq!((handshake.sid.as_deref(), handshake.port), (Some(SID), GATE_PORT));
        let What::Request(poll) = &script[2] else { panic!() };
        assert!(poll.is_poll);
        assert_eq!(is_answered(&script, 4), Some(3));
        assert_eq!(is_answered(&script, 5), Some(2));
    }

    #[test]
    fn a_browser_behind_a_proxy_is_a_client_like_others() {
        let script = script(&[
            r#""dir":"c2s","conn":"3051-1","event":"tcp-open""#,
            r#""dir":"c2s","conn":"3051-1","http":"GET /x","headers":{"origin":"o","upgrade":"websocket"}"#,
            r#""dir":"s2c","conn":"3051-1","http":"101 Switching Protocols","headers":{}"#,
            r#""dir":"c2s","conn":"3051-1","event":"ws-close-frame","hex":"""#,
            r#""dir":"s2c","conn":"3051-1","event":"ws-close-frame","hex":"03e8""#,
            r#""dir":"s2c","conn":"3051-1","event":"fin""#,
        ]);
        let (transport, path) = (Transport::WebSocket, "/x".to_owned());
        let headers = Headers::one("origin", "o");
        let by = Closer::ClientFrame(None);
        assert_eq!(
            script,
            [
                What::Remark,
                What::Open { transport, port: 3051, path, headers },
                What::Closed { by, code: Some(1000) },
            ]
        );
    }

    #[test]
    fn a_session_without_a_beginning_gets_one() {
        let asked = r#""dir":"c2s","conn":"c","text":"GET /socket.io/1/websocket/SID HTTP/1.1\r\nHost: 127.0.0.1:3050\r\n\r\n""#;
        let script = script(&[asked]);
        assert_eq!(script[0], What::Handshake { port: 3050, sid: SID.to_owned() });
        assert!(matches!(script[1], What::Open { transport: Transport::Tcp, port: 3050, .. }));
        assert!(matches!(script[2], What::Send(_)));
    }
}
