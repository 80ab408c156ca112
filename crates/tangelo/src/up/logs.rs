//! The folder of logs: one bounded file per process, and a lock for the cluster that writes them.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Largest log file, in bytes; a full one becomes the `.1`, so a process has at most twice this.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A log file. A disk that is full loses lines and stops nothing.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl LogFile {
    /// Begins a new file; the one of the run before becomes `<path>.1`.
    pub(super) fn create(path: PathBuf) -> Self {
        let mut log = Self { path, file: None, bytes: 0 };
        log.rotate();
        log
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &str) {
        if self.bytes >= FILE_BYTES_MAX {
            self.rotate();
        }
        self.bytes += lines.len() as u64;
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(lines.as_bytes()) {
            let file = self.path.display();
            tracing::error!(%file, %error, "log file not written; it ends here");
            self.file = None;
        }
    }

    fn rotate(&mut self) {
        self.bytes = 0;
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        // There is nothing to keep when this fails, or it is overwritten below.
        let _ = fs::rename(&self.path, old);
        self.file = match File::create(&self.path) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "log file not created");
                None
            }
        };
    }
}

/// Says "this folder is mine" for as long as it lives, even if the process is killed.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Makes the folder and locks it.
///
/// # Errors
///
/// If it cannot be written to, or another cluster uses it; the text says what to do.
pub(super) fn lock(folder: &Path) -> anyhow::Result<Lock> {
    let shown = folder.display();
    let cannot = || format!("cannot write to the log folder {shown}; choose another with --logs");
    fs::create_dir_all(folder).with_context(cannot)?;
    let path = folder.join("tangelo.lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).with_context(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).unwrap_or_default();
            bail!("{}", already_running(pid.trim(), folder));
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(cannot)?;
    Ok(Lock { _file: file })
}

fn already_running(pid: &str, folder: &Path) -> String {
    format!(
        "a cluster is running already (process {pid}, logs in {}); stop it with Ctrl-C there or \
         `kill {pid}`, or start this one beside it with other ports and another folder: \
         tangelo up --gate-port 4014 --connector-port 4050 --registry-port 4005 --logs logs-2",
        folder.display()
    )
}

/// Makes `folder` and empties it of files.
///
/// # Errors
///
/// If the system does not allow it.
pub(super) fn make_empty(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("tangelo-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_run_before_is_kept() {
        let folder = Folder::new("rotate");
        let path = folder.0.join("gate-1.log");
        for run in ["first\n", "second\n", "third\n"] {
            LogFile::create(path.clone()).write(run);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "third\n");
        assert_eq!(fs::read_to_string(folder.0.join("gate-1.log.1")).unwrap(), "second\n");
    }

    #[test]
    fn a_full_file_is_rotated() {
        let folder = Folder::new("full");
        let path = folder.0.join("gate-1.log");
        let mut log = LogFile::create(path.clone());
        log.write("a\n");
        log.bytes = FILE_BYTES_MAX;
        log.write("b\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
        assert_eq!(fs::read_to_string(folder.0.join("gate-1.log.1")).unwrap(), "a\n");
    }

    #[test]
    fn a_folder_has_one_cluster() {
        let folder = Folder::new("lock");
        let first = lock(&folder.0).unwrap();
        let error = lock(&folder.0).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("--gate-port"), "{error}");
        drop(first);
        lock(&folder.0).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_is_explained() {
        let error = format!("{:#}", lock(Path::new("/dev/null/logs")).unwrap_err());
        assert!(error.contains("choose another with --logs"), "{error}");
    }
}
