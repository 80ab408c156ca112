//! The files of a Pomelo application that say how its clients' bytes are shortened.

use std::{
    fmt::Display,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::{OsStringValueParser, TypedValueParser};
use daemon::UsageError;
use model::limits;
use wire::pomelo::{Dictionary, Hello, Options, Protos, Schema};

/// Largest file, in bytes. A dictionary of some thousand routes has a tenth of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a role that faces clients is told of a Pomelo application. What is not given is as in
/// chatofpomelo.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Pomelo application")]
pub struct PomeloFiles {
    /// The application's dictionary.json: routes that travel as numbers, beside the handlers'
    #[arg(long, env = "TANGELO_DICTIONARY", value_name = "FILE", value_parser = path())]
    pub dictionary: Option<PathBuf>,

    /// The application's clientProtos.json: routes whose requests are protobuf
    /// [default: none]
    #[arg(long, env = "TANGELO_CLIENT_PROTOS", value_name = "FILE", value_parser = path())]
    pub client_protos: Option<PathBuf>,

    /// The application's serverProtos.json: pushes and responses that are protobuf
    /// [default: onChat]
    #[arg(long, env = "TANGELO_SERVER_PROTOS", value_name = "FILE", value_parser = path())]
    pub server_protos: Option<PathBuf>,
}

/// Parses the path of an argument. It may be empty, as a variable is that is set to nothing.
#[must_use]
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl PomeloFiles {
    /// How a gate of the application speaks. It has a dictionary only if one is given, since the
    /// original's has none.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or used; the text says which, where, and what to do.
    pub fn gate(&self) -> Result<Options, UsageError> {
        let dictionary =
            given(self.dictionary.as_deref()).map(|_| self.dictionary()).transpose()?;
        checked(Options::gate(dictionary, self.protos()?))
    }

    /// How a connector of the application speaks, with this heartbeat in whole seconds.
    ///
    /// # Errors
    ///
    /// As [`gate`](Self::gate).
    pub fn connector(&self, heartbeat: Duration) -> Result<Options, UsageError> {
        checked(Options::connector(heartbeat, self.dictionary()?, self.protos()?))
    }

    /// The names of the flags, each with the file that it was given.
    pub fn flags(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [
            ("--dictionary", &self.dictionary),
            ("--client-protos", &self.client_protos),
            ("--server-protos", &self.server_protos),
        ]
        .into_iter()
        .filter_map(|(flag, path)| Some((flag, given(path.as_deref())?)))
    }

    fn dictionary(&self) -> Result<Dictionary, UsageError> {
        let read = read("--dictionary", self.dictionary.as_deref(), Dictionary::with_application);
        Ok(read?.unwrap_or_else(Dictionary::chat))
    }

    fn protos(&self) -> Result<Protos, UsageError> {
        let client = read("--client-protos", self.client_protos.as_deref(), Schema::parse)?;
        let server = read("--server-protos", self.server_protos.as_deref(), Schema::parse)?;
        let chat = Protos::chat();
        Ok(Protos { client: client.unwrap_or(chat.client), server: server.unwrap_or(chat.server) })
    }
}

fn given(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// What the file says, if one is given.
fn read<T, E: Display>(
    flag: &str,
    path: Option<&Path>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, UsageError> {
    let Some(path) = given(path) else { return Ok(None) };
    let wrong = |why: &dyn Display| {
        UsageError(format!("{flag} {}: {why}; mend the file, or leave {flag} out", path.display()))
    };
    let text = text(path).map_err(|why| wrong(&why))?;
    // Node reads over the mark that some editors begin a file with.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    parse(text).map(Some).map_err(|why| wrong(&why))
}

fn text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Every client that keeps nothing is told all of it in one package, which must fit its queue.
fn checked(options: Options) -> Result<Options, UsageError> {
    let bytes = options.answer(&Hello::default()).len();
    if bytes == 0 || bytes > limits::HANDSHAKE_BYTES_MAX {
        return Err(UsageError(format!(
            "--dictionary, --client-protos and --server-protos say more than the {} bytes that \
             one handshake may have; leave routes out that this server does not use",
            limits::HANDSHAKE_BYTES_MAX
        )));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file that is gone after the test.
    struct Written(PathBuf);

    impl Written {
        fn new(name: &str, bytes: impl AsRef<[u8]>) -> Self {
            let path = std::env::temp_dir().join(format!("tangelo-{}-{name}", std::process::id()));
            fs::write(&path, bytes).unwrap();
            Self(path)
        }

        fn path(&self) -> Option<PathBuf> {
            Some(self.0.clone())
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn answer(options: &Options, hello: &Hello) -> serde_json::Value {
        serde_json::from_slice(&options.answer(hello)[4..]).unwrap()
    }

    #[test]
    fn without_files_all_is_as_in_the_original() {
        let files = PomeloFiles { dictionary: Some(PathBuf::new()), ..PomeloFiles::default() };
        let hello = Hello::default();
        let (gate, connector) =
            (files.gate().unwrap(), files.connector(limits::POMELO_HEARTBEAT).unwrap());
        assert_eq!(gate.answer(&hello), Options::chat_gate().answer(&hello));
        assert_eq!(connector.answer(&hello), Options::chat_connector().answer(&hello));
        assert_eq!(files.flags().count(), 0);
    }

    #[test]
    fn what_a_client_has_kept_is_not_sent_again() {
        let dictionary = Written::new("kept-dictionary.json", "\u{feff}[\"onChat\"]");
        let client = Written::new(
            "kept-clientProtos.json",
            r#"{"chat.chatHandler.send": {"required string content": 1}}"#,
        );
        let files = PomeloFiles {
            dictionary: dictionary.path(),
            client_protos: client.path(),
            server_protos: None,
        };
        let connector = files.connector(limits::POMELO_HEARTBEAT).unwrap();
        let sys = answer(&connector, &Hello::default())["sys"].take();
        assert_eq!(sys["dict"]["onChat"], 4);
        assert_eq!(sys["protos"]["client"]["chat.chatHandler.send"]["content"]["tag"], 1);
        assert_eq!(sys["protos"]["server"]["onChat"]["msg"]["tag"], 1);
        let version = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let hello = Hello {
            dict_version: version(&sys["dictVersion"]),
            proto_version: version(&sys["protos"]["version"]),
            ..Hello::default()
        };
        let short = r#"{"code":200,"sys":{"heartbeat":3,"useDict":true,"useProto":true}}"#;
        assert_eq!(&connector.answer(&hello)[4..], short.as_bytes());
        // The chat's own versions are other ones.
        let old = Hello {
            dict_version: Some("s2r1qfKDrbhWCkA6uf+PTA==".to_owned()),
            proto_version: Some("2zWPnSlRsRxjqgcU215Uxg==".to_owned()),
            ..Hello::default()
        };
        assert_eq!(connector.answer(&old), connector.answer(&Hello::default()));
        // A gate that is told so speaks in the same way.
        let gate = answer(&files.gate().unwrap(), &hello);
        assert_eq!(gate["sys"], serde_json::json!({"useDict": true, "useProto": true}));
    }

    #[test]
    fn a_broken_file_is_named_with_the_place_and_what_to_do() {
        for (name, bytes, words) in [
            ("comma.json", &b"[\n  \"a\",\n]"[..], "line 3 column 1"),
            ("number.json", b"[1]", "element 1 is no text"),
            ("latin1.json", b"[\"caf\xe9\"]", "it is not UTF-8"),
        ] {
            let written = Written::new(name, bytes);
            let files = PomeloFiles { dictionary: written.path(), ..PomeloFiles::default() };
            let error = files.connector(limits::POMELO_HEARTBEAT).unwrap_err().to_string();
            assert!(error.starts_with("--dictionary "), "{error}");
            assert!(error.contains(name) && error.contains(words), "{error}");
            assert!(error.ends_with("mend the file, or leave --dictionary out"), "{error}");
        }
        let written = Written::new("type.json", r#"{"onChat": {"required text msg": 1}}"#);
        let files = PomeloFiles { server_protos: written.path(), ..PomeloFiles::default() };
        let error = files.gate().unwrap_err().to_string();
        assert!(error.starts_with("--server-protos "), "{error}");
        assert!(error.contains(r#"in "onChat": the field "msg" has the unknown type"#), "{error}");
        let files = PomeloFiles { client_protos: Some("/no/such".into()), ..files };
        let error = files.gate().unwrap_err().to_string();
        assert!(error.starts_with("--client-protos /no/such: cannot be read"), "{error}");
    }

    #[test]
    fn what_no_handshake_can_carry_is_refused() {
        let large = Written::new("large.json", format!("[\"{}\"]", "x".repeat(1024 * 1024)));
        let files = PomeloFiles { dictionary: large.path(), ..PomeloFiles::default() };
        let error = files.connector(limits::POMELO_HEARTBEAT).unwrap_err().to_string();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        let routes: Vec<String> = (0..20_000).map(|at| format!("on{at}")).collect();
        let many = Written::new("many.json", serde_json::to_string(&routes).unwrap());
        let files = PomeloFiles { dictionary: many.path(), ..PomeloFiles::default() };
        let error = files.connector(limits::POMELO_HEARTBEAT).unwrap_err().to_string();
        assert!(error.contains("that one handshake may have"), "{error}");
    }
}
