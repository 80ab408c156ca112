//! Who is in a room, grouped by connector, so that a broadcast is a walk.

use std::collections::BTreeMap;

use model::{Incarnation, MemberId, SessionId, UserName};

use crate::message::Member;

/// The members of a room in the order that old clients know: connectors in the order in which
/// they first gained a member, and within a connector in the order of joining. Both ends keep it,
/// and apply the same events to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    groups: Vec<Group>,
    names: BTreeMap<UserName, MemberId>,
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

    /// Adds a member at the end of its connector's group.
    ///
    /// Returns false, and changes nothing, if the name is taken.
    pub fn insert(&mut self, member: Member) -> bool {
        if self.names.contains_key(&member.user) {
            return false;
        }
        self.names.insert(member.user.clone(), member.id);
        let entry = (member.id.session, member.user);
        match self.groups.iter_mut().find(|group| group.connector == member.id.connector) {
            Some(group) => group.sessions.push(entry),
            None => {
                self.groups.push(Group { connector: member.id.connector, sessions: vec![entry] })
            }
        }
        true
    }

    /// Takes a member out; a connector without members loses its place.
    pub fn remove(&mut self, id: MemberId) -> Option<Member> {
        let at = self.groups.iter().position(|group| group.connector == id.connector)?;
        let group = &mut self.groups[at];
        let place = group.sessions.iter().position(|(session, _)| *session == id.session)?;
        let (_, user) = group.sessions.remove(place);
        if group.sessions.is_empty() {
            self.groups.remove(at);
        }
        self.names.remove(&user);
        Some(Member { id, user })
    }

    /// Who has this name.
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

    /// All names in order.
    #[must_use]
    pub fn users(&self) -> Vec<UserName> {
        self.groups
            .iter()
            .flat_map(|group| group.sessions.iter().map(|(_, user)| user.clone()))
            .collect()
    }
}

impl FromIterator<Member> for Members {
    /// Collects members; of two with one name the first stays.
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
    fn a_name_is_unique_and_free_again() {
        let mut members = Members::default();
        assert!(members.insert(member(1, 1, "alice")));
        assert!(!members.insert(member(2, 9, "alice")));
        assert_eq!(members.remove(member(1, 1, "alice").id), Some(member(1, 1, "alice")));
        assert_eq!(members.remove(member(1, 1, "alice").id), None);
        assert!(members.insert(member(2, 9, "alice")));
        assert_eq!(members.len(), 1);
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
