//! A headless Chromium, driven through chromedriver.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use e2e::until;
use fantoccini::{Client, ClientBuilder, Locator, elements::Element, wd::WindowHandle};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

/// Where Debian and others put the browser.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const WIDTH: u32 = 1200;
const HEIGHT: u32 = 940;

/// A browser with its driver; both end when it is dropped.
pub(crate) struct Browser {
    client: Client,
    driver: Child,
}

/// One tab, with one person in front of it.
pub(crate) struct Tab<'a> {
    browser: &'a Browser,
    window: WindowHandle,
}

impl Browser {
    /// Starts a browser. `None` if there is none on this machine.
    pub(crate) async fn start() -> anyhow::Result<Option<Self>> {
        let Some(browser) = BROWSERS.iter().find_map(|name| find(name)) else {
            return Ok(None);
        };
        let Some(driver) = find("chromedriver") else {
            return Ok(None);
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // The browser joins its driver's group, so that both can be ended together.
            .process_group(0)
            .spawn()
            .context("cannot start chromedriver")?;
        match connect(&mut driver, &browser).await {
            Ok(client) => Ok(Some(Self { client, driver })),
            Err(error) => {
                end(&mut driver);
                Err(error)
            }
        }
    }

    /// The tab that is open, and a second one.
    pub(crate) async fn two_tabs(&self) -> anyhow::Result<(Tab<'_>, Tab<'_>)> {
        let first = self.client.window().await?;
        let second = self.client.new_window(true).await?.handle;
        Ok((Tab { browser: self, window: first }, Tab { browser: self, window: second }))
    }

    /// Ends the session in order, so that the browser's own processes go before their driver.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.client.clone().close().await?;
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.driver);
    }
}

/// Ends the driver, and its browser if no session was closed in order.
fn end(driver: &mut Child) {
    // Both fail only if they have ended already.
    if let Some(group) = i32::try_from(driver.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = driver.wait();
}

fn find(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Opens a session, at the port that the driver says it has taken.
async fn connect(driver: &mut Child, browser: &Path) -> anyhow::Result<Client> {
    let output = driver.stdout.take().context("its output is piped")?;
    let mut lines = BufReader::new(output).lines();
    let port = loop {
        let line = lines.next().context("chromedriver ended before it listened")??;
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            break port.trim_end_matches('.').to_owned();
        }
    };
    let capabilities = json!({
        "browserName": "chrome",
        "goog:chromeOptions": {
            "binary": browser,
            "args": [
                "--headless=new",
                // CI is root in a container, where the browser's own sandbox cannot start.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--force-color-profile=srgb",
                "--lang=en-US",
                format!("--window-size={WIDTH},{HEIGHT}"),
            ],
            "prefs": { "intl.accept_languages": "en-US,en" },
        },
    });
    let Value::Object(capabilities) = capabilities else {
        anyhow::bail!("capabilities are an object");
    };
    ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities.into_iter().collect())
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
        .context("chromedriver opens no session")
}

impl<'a> Tab<'a> {
    /// A copy of this tab, as browsers make it: with what the tab remembers.
    pub(crate) async fn copy(&self) -> anyhow::Result<Tab<'a>> {
        let client = &self.browser.client;
        let before = client.windows().await?;
        self.value("void window.open(location.href)").await?;
        let window = until("a tab opens", async || {
            let mut windows = client.windows().await?.into_iter();
            windows.find(|window| !before.contains(window)).context("no other tab")
        })
        .await?;
        Ok(Tab { browser: self.browser, window })
    }

    /// Closes it.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        Ok(self.front().await?.close_window().await?)
    }

    /// The session, with this tab in front.
    async fn front(&self) -> anyhow::Result<&Client> {
        let client = &self.browser.client;
        client.switch_to_window(self.window.clone()).await?;
        Ok(client)
    }

    /// Opens an address.
    pub(crate) async fn open(&self, address: &str) -> anyhow::Result<()> {
        Ok(self.front().await?.goto(address).await?)
    }

    /// Types into the field of this selector, after emptying it.
    pub(crate) async fn fill(&self, selector: &str, text: &str) -> anyhow::Result<()> {
        let field = self.shown(selector).await?;
        field.clear().await?;
        Ok(field.send_keys(text).await?)
    }

    /// Clicks what this selector names, once it is to be seen.
    pub(crate) async fn click(&self, selector: &str) -> anyhow::Result<()> {
        Ok(self.shown(selector).await?.click().await?)
    }

    /// The element that this selector names, once it is to be seen.
    async fn shown(&self, selector: &str) -> anyhow::Result<Element> {
        let client = self.front().await?;
        until(&format!("{selector} is shown"), async || {
            let element = client.find(Locator::Css(selector)).await?;
            anyhow::ensure!(element.is_displayed().await?, "it is hidden");
            Ok(element)
        })
        .await
    }

    /// Presses a key, wherever the focus is.
    pub(crate) async fn press(&self, key: &str) -> anyhow::Result<()> {
        Ok(self.front().await?.active_element().await?.send_keys(key).await?)
    }

    /// The window's width and height.
    pub(crate) async fn size(&self) -> anyhow::Result<(u32, u32)> {
        let (width, height) = self.front().await?.get_window_size().await?;
        Ok((u32::try_from(width)?, u32::try_from(height)?))
    }

    /// Gives the window another width and height.
    pub(crate) async fn resize(&self, width: u32, height: u32) -> anyhow::Result<()> {
        Ok(self.front().await?.set_window_size(width, height).await?)
    }

    /// The value of an expression in the page.
    pub(crate) async fn value(&self, expression: &str) -> anyhow::Result<Value> {
        let client = self.front().await?;
        Ok(client.execute(&format!("return {expression};"), Vec::new()).await?)
    }

    /// How many there are in the list that an expression in the page gives.
    pub(crate) async fn count(&self, expression: &str) -> anyhow::Result<u64> {
        let length = self.value(&format!("{expression}.length")).await?;
        length.as_u64().context("no list has such a length")
    }

    /// Waits until an expression in the page has this value.
    pub(crate) async fn expect(&self, expression: &str, wanted: Value) -> anyhow::Result<()> {
        until(&format!("{expression} is {wanted}"), async || {
            let value = self.value(expression).await?;
            anyhow::ensure!(value == wanted, "it is {value}");
            Ok(())
        })
        .await
    }

    /// Saves what is to be seen.
    pub(crate) async fn screenshot(&self, name: &str) -> anyhow::Result<PathBuf> {
        let picture = self.front().await?.screenshot().await?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(name).with_extension(OsStr::new("png"));
        std::fs::write(&file, picture)?;
        Ok(file)
    }
}
