//! The names of routes and the bodies that go with them, byte for byte.

use model::{Code, UserName};

use crate::{
    Call, Push, Reply,
    body::{self, Sink},
};

/// Push: somebody entered.
pub const ON_ADD: &str = "onAdd";
/// Push: somebody left.
pub const ON_LEAVE: &str = "onLeave";
/// Push of the modern fields: so many are here.
pub const ON_COUNT: &str = "onCount";
/// Push: somebody said something.
pub const ON_CHAT: &str = "onChat";
/// Push of the Socket.IO dialects: the server ends the session.
pub const ON_KICK: &str = "onKick";

/// A route that a client can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// `gate.gateHandler.queryEntry`
    QueryEntry,
    /// `connector.entryHandler.enter`
    Enter,
    /// `chat.chatHandler.send`
    Send,
}

impl Route {
    /// All routes, in the order of their names: the order of the default dictionary.
    pub const ALL: [Self; 3] = [Self::Send, Self::Enter, Self::QueryEntry];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueryEntry => "gate.gateHandler.queryEntry",
            Self::Enter => "connector.entryHandler.enter",
            Self::Send => "chat.chatHandler.send",
        }
    }

    /// The route of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.name() == name)
    }
}

/// Whether a route asks for a handler's constructor, which the original takes for an attack and
/// kicks for.
#[must_use]
pub fn is_attack(route: &str) -> bool {
    let mut parts = route.split('.');
    matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some(_), Some(_), Some("constructor"), None)
    )
}

impl Call {
    /// Reads a call from the JSON body of a request, or its
    /// [first argument](body::first_argument) where the dialect has that.
    ///
    /// A body that is not what the route wants is read as an empty object, so that members are
    /// [`model::Content::Missing`]; what that means is for the session to say.
    #[must_use]
    pub fn from_json(route: Route, json: &str) -> Self {
        match route {
            Route::QueryEntry => {
                let [uid, rid, tangelo] = body::members(json, ["uid", "rid", "tangelo"]);
                Self::QueryEntry { uid, rid, tangelo }
            }
            Route::Enter => {
                let names = ["username", "rid", "resume", "tangelo"];
                let [username, rid, resume, tangelo] = body::members(json, names);
                Self::Enter { username, rid, resume, tangelo }
            }
            Route::Send => {
                let [content, target, id] = body::members(json, ["content", "target", "id"]);
                Self::Send { content, target, id }
            }
        }
    }
}

impl Reply {
    /// Writes the body as JSON, members in the original's order.
    pub fn write_json(&self, out: &mut impl Sink) {
        match self {
            Self::Entry { host, port } | Self::Slot { host, port, .. } => {
                out.text("{\"code\":200,\"host\":");
                body::write_string(out, host);
                out.text(",\"port\":");
                body::write_number(out, u64::from(*port));
                out.text("}");
            }
            Self::Users(users) => {
                out.text("{\"users\":");
                write_users(out, users);
                out.text("}");
            }
            // What clients of the original's time hear.
            Self::Entered(entered) => {
                out.text("{\"users\":");
                write_users(out, &entered.users);
                out.text("}");
            }
            Self::Done | Self::Placed(_) => out.text("{}"),
            Self::Refused { code, error } => write_refusal(out, *code, *error),
            Self::Busy { .. } => write_refusal(out, Code::NotApplied, true),
        }
    }

    /// Roughly the bytes of the body, to allocate once.
    #[must_use]
    pub fn json_len_hint(&self) -> usize {
        match self {
            Self::Entry { host, .. } | Self::Slot { host, .. } => 60 + host.len(),
            Self::Users(users) => 14 + names_len(users),
            Self::Entered(entered) => 160 + names_len(&entered.users) + entered.events.len(),
            Self::Placed(_) => 48,
            Self::Done => 2,
            Self::Refused { .. } | Self::Busy { .. } => 27,
        }
    }
}

fn write_refusal(out: &mut impl Sink, code: Code, error: bool) {
    out.text("{\"code\":");
    body::write_number(out, u64::from(code.for_old_clients()));
    out.text(if error { ",\"error\":true}" } else { "}" });
}

/// Writes names as a JSON array.
pub(crate) fn write_users(out: &mut impl Sink, users: &[UserName]) {
    out.text("[");
    for (at, user) in users.iter().enumerate() {
        if at > 0 {
            out.text(",");
        }
        body::write_string(out, user.as_str());
    }
    out.text("]");
}

fn names_len(users: &[UserName]) -> usize {
    users.iter().map(|user| user.as_str().len() + 3).sum()
}

impl Push<'_> {
    /// Writes the pushed object as JSON, members in the original's order. Content that was
    /// missing is left out.
    pub fn write_json(&self, out: &mut impl Sink) {
        self.write_open(out);
        out.text("}");
    }

    /// The same without its end, for further members.
    pub(crate) fn write_open(&self, out: &mut impl Sink) {
        out.text("{\"route\":\"");
        out.text(self.route());
        out.text("\"");
        match self {
            Self::Add { user } | Self::Leave { user } => {
                out.text(",\"user\":");
                body::write_string(out, user.as_str());
            }
            Self::Count { members } => {
                out.text(",\"count\":");
                body::write_number(out, *members as u64);
            }
            Self::Chat { content, from, target } => {
                body::write_member(out, "msg", content);
                out.text(",\"from\":");
                body::write_string(out, from.as_str());
                body::write_member(out, "target", target);
            }
        }
    }

    /// Roughly the bytes of the object, to allocate once.
    #[must_use]
    pub fn json_len_hint(&self) -> usize {
        match self {
            Self::Add { user } | Self::Leave { user } => 32 + user.as_str().len(),
            Self::Count { .. } => 40,
            Self::Chat { content, from, target } => {
                56 + content.len() + from.as_str().len() + target.len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use model::{Content, NameRule};

    fn json(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn user(name: &str) -> UserName {
        UserName::parse(name, &NameRule::default()).unwrap()
    }

    #[test]
    fn replies_have_the_members_of_the_original_in_its_order() {
        let entry = Reply::Entry { host: "127.0.0.1".to_owned(), port: 3050 };
        let written = json(|out| entry.write_json(out));
        assert_eq!(written, r#"{"code":200,"host":"127.0.0.1","port":3050}"#);
        let users = Reply::Users(vec![user("alice"), user("张三")]);
        let written = json(|out| users.write_json(out));
        assert_eq!(written, r#"{"users":["alice","张三"]}"#);
        let slot = Reply::Slot { host: "h".to_owned(), port: 1, after: Duration::from_secs(1) };
        let entry = Reply::Entry { host: "h".to_owned(), port: 1 };
        assert_eq!(json(|out| slot.write_json(out)), json(|out| entry.write_json(out)));
        let busy = Reply::Busy { retry_after: Duration::from_secs(1) };
        assert_eq!(json(|out| busy.write_json(out)), r#"{"code":500,"error":true}"#);
        for (error, expected) in
            [(false, r#"{"code":500}"#), (true, r#"{"code":500,"error":true}"#)]
        {
            let code = Code::NameTaken;
            let written = json(|out| Reply::Refused { code, error }.write_json(out));
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn pushes_begin_with_their_route() {
        let (bob, everyone) = (user("bob"), Content::Text("*".into()));
        let written = json(|out| Push::Add { user: &bob }.write_json(out));
        assert_eq!(written, r#"{"route":"onAdd","user":"bob"}"#);
        let push = Push::Chat { content: &Content::Missing, from: &bob, target: &everyone };
        let written = json(|out| push.write_json(out));
        assert_eq!(written, r#"{"route":"onChat","from":"bob","target":"*"}"#);
    }

    #[test]
    fn only_a_handlers_constructor_is_an_attack() {
        assert!(is_attack("connector.entryHandler.constructor"));
        assert!(!is_attack("constructor"));
        assert!(!is_attack("connector.constructor"));
        assert!(!is_attack("a.b.c.constructor"));
        assert!(!is_attack("a.b.constructor.d"));
    }

    #[test]
    fn routes_are_in_the_order_of_their_names() {
        assert!(Route::ALL.is_sorted_by_key(|route| route.name()));
        for route in Route::ALL {
            assert_eq!(Route::from_name(route.name()), Some(route));
        }
    }
}
