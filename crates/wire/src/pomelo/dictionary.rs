//! The route dictionary: numbers that stand for routes, known to both sides.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use serde_json::Value;

use crate::{
    Route,
    body::{self, Sink},
};

/// Routes and their codes, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dictionary {
    /// In the order of the wire, which the version depends on.
    routes: Vec<String>,
    codes: BTreeMap<String, u16>,
    names: BTreeMap<u16, String>,
}

/// Why an application's dictionary cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DictionaryError {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An element is no route.
    #[error("element {0} is no text; a dictionary is a list of routes, such as [\"onChat\"]")]
    Element(usize),
    /// What a server announced is no object of routes and 16-bit numbers.
    #[error("it is no object of routes and their numbers")]
    Announcement,
    /// Codes have 16 bits.
    #[error("it has more than 65535 routes")]
    TooMany,
}

impl Dictionary {
    /// The routes of the chat application, sorted and numbered from 1.
    #[must_use]
    pub fn chat() -> Self {
        let mut dictionary = Self::default();
        for (code, route) in (1..).zip(Route::ALL) {
            dictionary.insert(route.name(), code);
        }
        dictionary
    }

    /// The routes of the chat application, and after them those that a Pomelo application's
    /// `dictionary.json` lists. As in the original, anything but an array adds nothing, and a
    /// route that is listed again gets a second number, which is the one that is used.
    ///
    /// # Errors
    ///
    /// If `json` is no JSON, the array has anything but strings, or too many of them.
    pub fn with_application(json: &str) -> Result<Self, DictionaryError> {
        let mut dictionary = Self::chat();
        let Value::Array(routes) = serde_json::from_str(json)? else {
            return Ok(dictionary);
        };
        for (at, route) in routes.iter().enumerate() {
            let route = route.as_str().ok_or(DictionaryError::Element(at + 1))?;
            let code = u16::try_from(Route::ALL.len() + at + 1);
            dictionary.insert(route, code.map_err(|_| DictionaryError::TooMany)?);
        }
        Ok(dictionary)
    }

    /// The dictionary that a server announced: an object of routes and their codes.
    ///
    /// # Errors
    ///
    /// If a code is no 16-bit number.
    pub fn from_announcement(dict: &Value) -> Result<Self, DictionaryError> {
        let mut dictionary = Self::default();
        for (route, code) in dict.as_object().ok_or(DictionaryError::Announcement)? {
            let code = code.as_u64().and_then(|code| u16::try_from(code).ok());
            dictionary.insert(route, code.ok_or(DictionaryError::Announcement)?);
        }
        Ok(dictionary)
    }

    /// The number of a route.
    #[must_use]
    pub fn code(&self, route: &str) -> Option<u16> {
        self.codes.get(route).copied()
    }

    /// The route of a number.
    #[must_use]
    pub fn route(&self, code: u16) -> Option<&str> {
        self.names.get(&code).map(String::as_str)
    }

    /// What clients that keep dictionaries compare: base64 of the MD5 of the JSON.
    #[must_use]
    pub fn version(&self) -> String {
        version_of(&[&self.to_json()])
    }

    /// The object of routes and their codes, as announced.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = Vec::new();
        let mut separator = "{";
        for route in &self.routes {
            json.text(separator);
            body::write_string(&mut json, route);
            json.text(":");
            body::write_number(&mut json, self.code(route).unwrap_or_default().into());
            separator = ",";
        }
        finish_object(json, separator)
    }

    /// The object of codes and their routes, as announced.
    #[must_use]
    pub fn codes_to_json(&self) -> String {
        let mut json = Vec::new();
        let mut separator = "{";
        for (code, route) in &self.names {
            json.text(separator);
            json.text("\"");
            body::write_number(&mut json, (*code).into());
            json.text("\":");
            body::write_string(&mut json, route);
            separator = ",";
        }
        finish_object(json, separator)
    }

    fn insert(&mut self, route: &str, code: u16) {
        if self.codes.insert(route.to_owned(), code).is_none() {
            self.routes.push(route.to_owned());
        }
        self.names.insert(code, route.to_owned());
    }
}

/// The version of something announced: base64 of the MD5 of its JSON texts, one after the other.
pub(super) fn version_of(json: &[&str]) -> String {
    let mut hash = Md5::new();
    for text in json {
        hash.update(text);
    }
    BASE64_STANDARD.encode(hash.finalize())
}

fn finish_object(mut json: Vec<u8>, separator: &str) -> String {
    json.text(if separator == "{" { "{}" } else { "}" });
    String::from_utf8(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chat_has_the_originals_codes_and_version() {
        let chat = Dictionary::chat();
        assert_eq!(chat.code("chat.chatHandler.send"), Some(1));
        assert_eq!(chat.route(3), Some("gate.gateHandler.queryEntry"));
        assert_eq!(chat.route(0), None);
        assert_eq!(chat.version(), "s2r1qfKDrbhWCkA6uf+PTA==");
    }

    #[test]
    fn an_application_adds_routes_after_the_chat() {
        let added = Dictionary::with_application(r#"["onChat", "onAdd", "onChat"]"#).unwrap();
        assert_eq!(added.code("onAdd"), Some(5));
        assert_eq!(added.code("onChat"), Some(6));
        assert_eq!(added.route(4), Some("onChat"));
        assert!(added.to_json().ends_with(r#","onChat":6,"onAdd":5}"#));
        let codes = added.codes_to_json();
        assert!(codes.ends_with(r#","4":"onChat","5":"onAdd","6":"onChat"}"#));
    }

    #[test]
    fn anything_but_an_array_adds_nothing() {
        for json in ["{}", "null", r#"{"a":1}"#] {
            let dictionary = Dictionary::with_application(json).unwrap();
            assert_eq!(dictionary, Dictionary::chat());
        }
        let error = Dictionary::with_application(r#"["onChat", 1]"#).unwrap_err();
        assert!(error.to_string().starts_with("element 2 is no text"), "{error}");
        assert!(Dictionary::with_application("[").is_err());
        let many = serde_json::to_string(&vec!["x"; 65_536]).unwrap();
        assert!(Dictionary::with_application(&many).is_err());
    }

    #[test]
    fn what_is_announced_can_be_read() {
        let chat = Dictionary::chat();
        let announced = serde_json::from_str(&chat.to_json()).unwrap();
        assert_eq!(Dictionary::from_announcement(&announced).unwrap(), chat);
        let wrong = serde_json::json!({"a": 65536});
        assert!(Dictionary::from_announcement(&wrong).is_err());
        assert_eq!(Dictionary::default().to_json(), "{}");
    }
}
