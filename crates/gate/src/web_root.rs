//! A folder of the operator's, served in place of the chat page.
//!
//! The files are somebody else's page, such as that of the original chat: they get no policy of
//! ours, which would forbid the scripts inside them.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use daemon::UsageError;
use tower::ServiceExt as _;
use tower_http::services::fs::{Backend, DefaultServeDirFallback, ServeDir, TokioBackend};

/// The folder, ready to answer requests.
#[derive(Clone, Debug)]
pub struct WebRoot {
    files: ServeDir<DefaultServeDirFallback, Jail>,
}

impl WebRoot {
    /// Takes `folder` as it is now; files in it may change later.
    ///
    /// # Errors
    ///
    /// If it is no folder that can be read.
    pub fn new(folder: &Path) -> Result<Self, UsageError> {
        let wrong = |why: &str| {
            UsageError(format!(
                "--web-root {}: {why}; give the folder that holds the page's index.html",
                folder.display()
            ))
        };
        let root = folder.canonicalize().map_err(|error| wrong(&error.to_string()))?;
        fs::read_dir(&root).map_err(|error| wrong(&error.to_string()))?;
        if !root.join("index.html").is_file() {
            return Err(wrong("there is no index.html in it"));
        }
        let jail = Jail { root: Arc::from(root.as_path()) };
        // A browser that asks for several ranges at once is content with the whole.
        let files = ServeDir::with_backend(&root, jail).ignore_multi_range_requests(true);
        Ok(Self { files })
    }

    /// The file that is asked for by GET or HEAD. None if there is none.
    pub(crate) async fn serve(&self, request: Request) -> Option<Response> {
        // A folder's redirect repeats the path, and two slashes begin the name of a host.
        if request.uri().path().starts_with("//") {
            return None;
        }
        let answered = self.files.clone().oneshot(request).await;
        let mut response = answered.unwrap_or_else(|never| match never {}).map(Body::new);
        if response.status() == StatusCode::NOT_FOUND {
            return None;
        }
        let headers = response.headers_mut();
        if let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(in_utf8) {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        // Nothing says how long a file stays as it is: ask each time, and be told if it has.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Some(response)
    }
}

/// The type of a text together with its encoding, which the original's server told as well.
fn in_utf8(kind: &HeaderValue) -> Option<HeaderValue> {
    let kind = kind.to_str().ok().filter(|kind| kind.starts_with("text/"))?;
    HeaderValue::try_from(format!("{kind}; charset=utf-8")).ok()
}

/// Opens only what is in the folder: no hidden files, and no links that lead out of it.
#[derive(Clone, Debug)]
struct Jail {
    /// Without links.
    root: Arc<Path>,
}

impl Jail {
    /// Where a path really leads, if that may be served.
    async fn find(&self, path: PathBuf) -> io::Result<PathBuf> {
        let root = Arc::clone(&self.root);
        let found = tokio::task::spawn_blocking(move || {
            let found = path.canonicalize()?;
            if is_open(&root, &path) && is_open(&root, &found) && is_plain(&found)? {
                Ok(found)
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
        found.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Whether `path` is in `root`, and nothing on its way is hidden.
fn is_open(root: &Path, path: &Path) -> bool {
    path.strip_prefix(root).is_ok_and(|inside| inside.components().all(is_shown))
}

fn is_shown(component: Component<'_>) -> bool {
    match component {
        Component::Normal(name) => {
            name == ".well-known" || !name.as_encoded_bytes().starts_with(b".")
        }
        Component::CurDir => true,
        Component::Prefix(_) | Component::RootDir | Component::ParentDir => false,
    }
}

/// Whether it can be read to an end: a pipe would wait for a writer for ever.
fn is_plain(path: &Path) -> io::Result<bool> {
    let metadata = path.metadata()?;
    Ok(metadata.is_file() || metadata.is_dir())
}

impl Backend for Jail {
    type File = <TokioBackend as Backend>::File;
    type Metadata = <TokioBackend as Backend>::Metadata;
    type OpenFuture = Pin<Box<dyn Future<Output = io::Result<Self::File>> + Send>>;
    type MetadataFuture = Pin<Box<dyn Future<Output = io::Result<Self::Metadata>> + Send>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let jail = self.clone();
        Box::pin(async move { TokioBackend.open(jail.find(path).await?).await })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let jail = self.clone();
        Box::pin(async move { TokioBackend.metadata(jail.find(path).await?).await })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use axum::body::to_bytes;

    use super::*;

    /// A folder that is gone after the test, with the web root `public` in it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("tangelo-{}-{name}", std::process::id()));
            fs::create_dir_all(folder.join("public/js")).unwrap();
            let folder = Self(folder);
            folder.write("public/index.html", "<title>old</title>");
            folder.write("public/js/app.js", "'0123456789'");
            folder.write("secret.txt", "secret");
            folder
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }

        fn root(&self) -> WebRoot {
            WebRoot::new(&self.0.join("public")).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn ask(
        root: &WebRoot,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<Response> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        root.serve(request.body(Body::empty()).unwrap()).await
    }

    async fn get(root: &WebRoot, path: &str) -> Option<Response> {
        ask(root, "GET", path, &[]).await
    }

    fn header<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    async fn text(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), 1024).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn files_have_types_and_no_policy_of_ours() {
        let folder = Folder::new("types");
        let root = folder.root();
        let index = get(&root, "/").await.unwrap();
        assert_eq!(header(&index, "content-type"), "text/html; charset=utf-8");
        assert_eq!(header(&index, "cache-control"), "no-cache");
        assert_eq!(header(&index, "x-content-type-options"), "nosniff");
        assert_eq!(header(&index, "content-security-policy"), "");
        assert_eq!(text(index).await, "<title>old</title>");
        for (name, kind) in [
            ("a.css", "text/css; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.gif", "image/gif"),
            ("a.ico", "image/x-icon"),
            ("a.swf", "application/x-shockwave-flash"),
            ("a.json", "application/json"),
            ("a%20b.txt", "text/plain; charset=utf-8"),
            ("a.unknown", "application/octet-stream"),
        ] {
            folder.write(&format!("public/{}", name.replace("%20", " ")), "x");
            let response = get(&root, &format!("/{name}")).await.unwrap();
            assert_eq!(header(&response, "content-type"), kind, "{name}");
        }
        let script = get(&root, "/js/app.js?v=1").await.unwrap();
        assert_eq!(header(&script, "content-type"), "text/javascript; charset=utf-8");
    }

    #[tokio::test]
    async fn heads_parts_and_what_a_browser_has() {
        let folder = Folder::new("heads");
        let root = folder.root();
        let head = ask(&root, "HEAD", "/js/app.js", &[]).await.unwrap();
        assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, "12"));
        let tag = header(&head, "etag").to_owned();
        assert_eq!(text(head).await, "");
        let same = ask(&root, "GET", "/js/app.js", &[("if-none-match", &tag)]).await.unwrap();
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(header(&same, "cache-control"), "no-cache");
        let part = ask(&root, "GET", "/js/app.js", &[("range", "bytes=1-3")]).await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(text(part).await, "012");
    }

    #[tokio::test]
    async fn nothing_leads_out_of_the_folder() {
        let folder = Folder::new("jail");
        folder.write("public/.htpasswd", "secret");
        fs::create_dir_all(folder.0.join("public/.git")).unwrap();
        folder.write("public/.git/config", "secret");
        fs::create_dir_all(folder.0.join("public/.well-known")).unwrap();
        folder.write("public/.well-known/shown.txt", "shown");
        let link = |from: &str, to: &Path| symlink(to, folder.0.join("public").join(from)).unwrap();
        link("out.txt", &folder.0.join("secret.txt"));
        link("up", &folder.0);
        link("hidden.txt", Path::new(".htpasswd"));
        link("gone.txt", Path::new("nothing"));
        link("inside.js", Path::new("js/app.js"));
        let root = folder.root();
        for path in [
            "/nothing",
            "/../secret.txt",
            "/js/../../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/%2e%2e%5csecret.txt",
            "/out.txt",
            "/up/secret.txt",
            "/hidden.txt",
            "/gone.txt",
            "/.htpasswd",
            "/.git/config",
            "/js/",
            "/js/app.js/",
            "/js/app.js/x",
            "//js",
            "/%00",
            "/%ff",
        ] {
            let answer = get(&root, path).await;
            let status = answer.as_ref().map(Response::status);
            assert!(matches!(status, None | Some(StatusCode::BAD_REQUEST)), "{path}: {status:?}");
        }
        assert!(get(&root, "/.well-known/shown.txt").await.is_some());
        assert!(get(&root, "/inside.js").await.is_some());
        let there = get(&root, "/js").await.unwrap();
        assert_eq!(header(&there, "location"), "/js/");
    }

    #[test]
    fn a_folder_that_is_none_is_explained() {
        let folder = Folder::new("none");
        for name in ["absent", "secret.txt", "."] {
            let error = WebRoot::new(&folder.0.join(name)).unwrap_err().to_string();
            assert!(error.starts_with("--web-root "), "{error}");
            assert!(error.ends_with("the folder that holds the page's index.html"), "{error}");
        }
    }
}
