//! What a client speaks, by its first bytes.

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// Packages of the binary protocol.
    Packages,
    /// A request of HTTP.
    Http,
    /// Nothing yet.
    Unclear,
    /// Nothing that is known here.
    Unknown,
}

/// As the first four bytes of a request have them; longer names are cut.
const METHODS: [&[u8; 4]; 8] =
    [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN"];

/// Looks at all that has arrived.
pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    let start = &bytes[..bytes.len().min(4)];
    match start.first() {
        None => Sniffed::Unclear,
        Some(1..=5) => Sniffed::Packages,
        Some(_) if !METHODS.iter().any(|method| method.starts_with(start)) => Sniffed::Unknown,
        Some(_) if start.len() < 4 => Sniffed::Unclear,
        Some(_) => Sniffed::Http,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (bytes, sniffed) in [
            (&b""[..], Sniffed::Unclear),
            (b"\x01", Sniffed::Packages),
            (b"\x05\0\0\0", Sniffed::Packages),
            (b"\x06", Sniffed::Unknown),
            (b"\0", Sniffed::Unknown),
            (b"\x16\x03\x01", Sniffed::Unknown),
            (b"G", Sniffed::Unclear),
            (b"GET", Sniffed::Unclear),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http),
            (b"GETX", Sniffed::Unknown),
            (b"PUTxxxx", Sniffed::Unknown),
            (b"POST /", Sniffed::Http),
            (b"OPTIONS", Sniffed::Http),
            (b"hello world", Sniffed::Unknown),
        ] {
            assert_eq!(sniff(bytes), sniffed, "{bytes:?}");
        }
    }
}
