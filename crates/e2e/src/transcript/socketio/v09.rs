//! Frames of 0.9: one per WebSocket message or poll, or several behind marks.

use serde_json::value::RawValue;

use super::{
    super::{item::Item, packages::without_address},
    said,
};

/// Before each of several frames' lengths, and after it.
const MARK: char = '\u{fffd}';
const MESSAGE: &str = "3:::";

/// The body of a poll's answer, which for JSONP is a call.
pub(in super::super) fn payload(body: &[u8]) -> Vec<Item> {
    let text = String::from_utf8_lossy(body);
    let called = text.strip_prefix("io.j[").and_then(|rest| {
        let (_, argument) = rest.split_once("](")?;
        serde_json::from_str::<String>(argument.strip_suffix(");")?).ok()
    });
    let text = called.as_deref().unwrap_or(&text);
    let Some(frames) = frames(text) else {
        return items(text);
    };
    frames.into_iter().flat_map(items).collect()
}

/// Several frames, each with its length in UTF-16 units.
fn frames(mut text: &str) -> Option<Vec<&str>> {
    let mut frames = Vec::new();
    while !text.is_empty() {
        let (length, rest) = text.strip_prefix(MARK)?.split_once(MARK)?;
        let length: usize = length.parse().ok()?;
        let mut units = 0;
        let end = rest.char_indices().find_map(|(at, char)| {
            let is_end = units >= length;
            units += char.len_utf16();
            is_end.then_some(at)
        });
        let (frame, after) = rest.split_at(end.unwrap_or(rest.len()));
        frames.push(frame);
        text = after;
    }
    Some(frames)
}

/// What a frame says. How much of it the original put into one frame was a matter of time, so
/// every element counts for itself.
pub(in super::super) fn items(frame: &str) -> Vec<Item> {
    let Some(json) = frame.strip_prefix(MESSAGE) else {
        return vec![Item::other(frame.as_bytes().to_vec(), format!("frame {frame:?}"))];
    };
    let item = |json: &str| {
        let bytes = without_address(json.as_bytes(), "");
        said(&String::from_utf8_lossy(&bytes), bytes.clone())
    };
    match serde_json::from_str::<Vec<&RawValue>>(json) {
        Ok(elements) => elements.into_iter().map(|it| item(it.get())).collect(),
        Err(_) if json.starts_with('{') => vec![item(json)],
        Err(_) => vec![Item::other(frame.as_bytes().to_vec(), format!("frame {frame:?}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(items: &[Item]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn elements_count_for_themselves() {
        let push = r#"{"route":"onAdd","user":"bob"}"#;
        let together = items(&format!(r#"3:::[{push},{{"id":3,"body":{{}}}}]"#));
        assert_eq!(shown(&together), [&format!("push onAdd {push}"), "answer 3 {}"]);
        assert_eq!(items(&format!("3:::{push}")), together[..1]);
        assert_eq!(shown(&items("1::")), ["frame \"1::\""]);
        assert_eq!(shown(&items("3:::nonsense")), ["frame \"3:::nonsense\""]);
    }

    #[test]
    fn addresses_do_not_count() {
        let told = |host, port| {
            let json =
                format!(r#"3:::[{{"id":2,"body":{{"code":200,"host":"{host}","port":{port}}}}}]"#);
            items(&json)
        };
        assert_eq!(told("127.0.0.1", 3050), told("localhost", 23050));
    }

    #[test]
    fn polls_may_hold_several_frames() {
        let two = "\u{fffd}3\u{fffd}1::\u{fffd}9\u{fffd}3:::[\"😀\"".to_owned();
        assert_eq!(payload(two.as_bytes()).len(), 2);
        assert_eq!(payload(b"io.j[0](\"1::\");"), items("1::"));
    }
}
