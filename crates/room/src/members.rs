//! Who is in a room, grouped by connector, so that a broadcast is a walk.
//!
//! A name is one member. It has one session, unless the policy lets it have more; whether it may is
//! not decided here.

use std::collections::{BTreeMap, BTreeSet};

use model::{Incarnation, MemberId, SessionId, UserName};

use crate::message::Member;

/// The members of a room in the order that old clients know: connectors in the order in which
/// they first gained a member, and within a connector in the order of joining. Both ends keep it,
/// and apply the same events to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    groups: Vec<Group>,
    /// The first session of each member.
    names: BTreeMap<UserName, MemberId>,
    /// The others, of the few members that have some.
    more: BTreeMap<UserName, Vec<MemberId>>,
}

/// The members on one connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The connector.
    pub connector: Incarnation,
    /// Its sessions and their names, in the order of joining. Never empty.
    pub sessions: Vec<(SessionId, UserName)>,
}

impl Members {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds a session at the end of its connector's group.
    ///
    /// Returns whether nobody had the name, so that it is a new member, and not another session of
    /// one.
    pub fn insert(&mut self, member: Member) -> bool {
        let is_new = !self.names.contains_key(&member.user);
        if is_new {
            self.names.insert(member.user.clone(), member.id);
        } else {
            self.more.entry(member.user.clone()).or_default().push(member.id);
        }
        let entry = (member.id.session, member.user);
        match self.groups.iter_mut().find(|group| group.connector == member.id.connector) {
            Some(group) => group.sessions.push(entry),
            None => {
                self.groups.push(Group { connector: member.id.connector, sessions: vec![entry] })
            }
        }
        is_new
    }

    /// Takes a session out; a connector without sessions loses its place.
    pub fn remove(&mut self, id: MemberId) -> Option<Member> {
        let at = self.groups.iter().position(|group| group.connector == id.connector)?;
        let group = &mut self.groups[at];
        let place = group.sessions.iter().position(|(session, _)| *session == id.session)?;
        let (_, user) = group.sessions.remove(place);
        if group.sessions.is_empty() {
            self.groups.remove(at);
        }
        self.forget(&user, id);
        Some(Member { id, user })
    }

    fn forget(&mut self, user: &UserName, id: MemberId) {
        if let Some(more) = self.more.get_mut(user) {
            if self.names.get(user) == Some(&id) {
                self.names.insert(user.clone(), more.remove(0));
            } else {
                more.retain(|other| *other != id);
            }
            if more.is_empty() {
                self.more.remove(user);
            }
        } else {
            self.names.remove(user);
        }
    }

    /// All sessions of this name, the first first.
    pub fn all_named(&self, user: &UserName) -> impl Iterator<Item = MemberId> {
        let more = if self.more.is_empty() { None } else { self.more.get(user) };
        self.named(user).into_iter().chain(more.into_iter().flatten().copied())
    }

    /// The first session of this name.
    #[must_use]
    pub fn named(&self, user: &UserName) -> Option<MemberId> {
        self.names.get(user).copied()
    }

    /// The name of this member, if it is one. Looks through its connector's group.
    #[must_use]
    pub fn name(&self, id: MemberId) -> Option<&UserName> {
        let group = self.group(id.connector)?;
        group.sessions.iter().find(|(session, _)| *session == id.session).map(|(_, user)| user)
    }

    /// The members on one connector.
    #[must_use]
    pub fn group(&self, connector: Incarnation) -> Option<&Group> {
        self.groups.iter().find(|group| group.connector == connector)
    }

    /// All groups in order.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// All members in order.
    pub fn iter(&self) -> impl Iterator<Item = Member> {
        self.groups.iter().flat_map(|group| {
            let connector = group.connector;
            group.sessions.iter().map(move |(session, user)| Member {
                id: MemberId { connector, session: *session },
                user: user.clone(),
            })
        })
    }

    /// All names in order, each once: that of a member with several sessions stands where the
    /// first of them in this order does.
    #[must_use]
    pub fn users(&self) -> Vec<UserName> {
        let names = self.groups.iter().flat_map(|group| &group.sessions).map(|(_, user)| user);
        if self.more.is_empty() {
            return names.cloned().collect();
        }
        let mut listed = BTreeSet::new();
        names.filter(|user| listed.insert(*user)).cloned().collect()
    }
}

impl FromIterator<Member> for Members {
    /// Collects sessions; those of one name are one member.
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let mut all = Self::default();
        for member in members {
            all.insert(member);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::NameRule;

    fn member(connector: u64, session: u64, user: &str) -> Member {
        Member {
            id: MemberId { connector: Incarnation(connector), session: SessionId(session) },
            user: UserName::parse(user, &NameRule::default()).unwrap(),
        }
    }

    #[test]
    fn the_order_is_the_recorded_one() {
        // Six users enter over connectors 1,2,3,1,2,1: transcript `users-order`.
        let members: Members = [1, 2, 3, 1, 2, 1]
            .iter()
            .zip(1..)
            .map(|(connector, n)| member(*connector, n, &format!("u{n}")))
            .collect();
        let names: Vec<String> = members.users().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["u1", "u4", "u6", "u2", "u5", "u3"]);
    }

    #[test]
    fn a_name_is_free_again_when_its_last_session_goes() {
        let mut members = Members::default();
        let (first, second, third) =
            (member(1, 1, "alice"), member(2, 9, "alice"), member(1, 3, "alice"));
        assert!(members.insert(first.clone()));
        members.insert(member(1, 2, "bob"));
        assert!(!members.insert(second.clone()) && !members.insert(third.clone()));
        assert_eq!((members.len(), members.iter().count()), (2, 4));
        let alice = first.user.clone();
        assert_eq!(members.all_named(&alice).collect::<Vec<_>>(), [first.id, second.id, third.id]);
        let names = |members: &Members| -> Vec<String> {
            members.users().iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&members), ["alice", "bob"]);
        assert_eq!(members.remove(first.id), Some(first.clone()));
        assert_eq!(members.remove(first.id), None);
        assert_eq!(members.named(&alice), Some(second.id));
        assert_eq!(names(&members), ["bob", "alice"]);
        members.remove(third.id);
        assert_eq!(members.all_named(&alice).collect::<Vec<_>>(), [second.id]);
        members.remove(second.id);
        assert_eq!((members.named(&alice), members.len()), (None, 1));
        assert!(members.insert(third));
    }

    #[test]
    fn an_emptied_connector_loses_its_place() {
        let mut members: Members = [member(1, 1, "a"), member(2, 1, "b")].into_iter().collect();
        members.remove(member(1, 1, "a").id);
        members.insert(member(1, 2, "c"));
        let names: Vec<String> = members.users().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["b", "c"]);
    }
}
