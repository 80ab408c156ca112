//! The page in a real browser, against real processes: two people in two tabs.
//!
//! Needs Chromium and chromedriver (Debian: `chromium chromium-driver`). Pictures of what they
//! saw are in `target/tmp/browser`.

#[path = "browser/driver.rs"]
mod driver;

use std::env;

use anyhow::{Context as _, ensure};
use client::{Client, Event, Options, Push};
use driver::{Browser, Tab};
use e2e::{Cluster, Node, Shape};
use model::Role;
use serde_json::json;

/// Set where nothing may be skipped.
const REQUIRE_ALL: &str = "TANGELO_REQUIRE_ALL";
/// The address of a page that is served already, `http://host:port`: no cluster is started, and
/// nothing is killed. For work on the page.
const PAGE: &str = "TANGELO_PAGE";

/// What is to be read in the log, oldest first, without times.
const TEXTS: &str = "[...document.querySelectorAll('#lines .text')].map(e => e.textContent)";
const MEMBERS: &str =
    "[...document.querySelectorAll('#members-list .name')].map(e => e.textContent)";
const PHASE: &str = "document.getElementById('status').dataset.phase";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_chat_in_two_tabs() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        ensure!(
            env::var_os(REQUIRE_ALL).is_none_or(|value| value != "1"),
            "chromium or chromedriver not found, and {REQUIRE_ALL}=1"
        );
        eprintln!("skipped: chromium not found");
        return Ok(());
    };
    let served = env::var(PAGE).ok();
    let mut cluster = match served {
        Some(_) => None,
        None => Some(Cluster::start("browser", Shape::new(2, 2)).await?),
    };
    let page = match (&served, &cluster) {
        (Some(page), _) => page.clone(),
        (None, Some(cluster)) => format!("http://{}", cluster.gate()),
        (None, None) => anyhow::bail!("neither a page nor a cluster"),
    };
    let (alice, bob) = browser.two_tabs().await?;
    let result = async {
        a_name_is_taken_only_once(&page, &alice, &bob).await?;
        they_talk(&alice, &bob).await?;
        they_whisper(&alice, &bob).await?;
        alice.screenshot("chat").await?;
        who_looks_away_is_told(&alice, &bob).await?;
        a_phone_has_room_for_all(&alice).await?;
        one_leaves(&alice, &bob).await?;
        if let Some(cluster) = &mut cluster {
            a_lost_connector_is_replaced(cluster, &alice).await?;
        }
        the_page_speaks_chinese(&bob).await
    }
    .await;
    if result.is_err() {
        for (tab, name) in [(&alice, "failed-alice"), (&bob, "failed-bob")] {
            let picture = tab.screenshot(name).await;
            eprintln!("{name}: {picture:?}");
        }
    }
    let closed = browser.close().await;
    result.and(closed)
}

async fn enter(tab: &Tab<'_>, name: &str) -> anyhow::Result<()> {
    tab.fill("#name", name).await?;
    tab.click("#join-go").await
}

async fn send(tab: &Tab<'_>, text: &str) -> anyhow::Result<()> {
    tab.fill("#draft", text).await?;
    tab.click("#send").await
}

async fn a_name_is_taken_only_once(
    page: &str,
    alice: &Tab<'_>,
    bob: &Tab<'_>,
) -> anyhow::Result<()> {
    alice.open(&format!("{page}/#browser")).await?;
    enter(alice, "alice").await?;
    alice.expect(PHASE, json!("online")).await?;
    alice.expect(MEMBERS, json!(["alice"])).await?;

    bob.open(&format!("{page}/#browser")).await?;
    enter(bob, "two words").await?;
    let error = "document.getElementById('name-error').textContent";
    bob.expect(error, json!("A name has no spaces. Try _ or - instead.")).await?;
    enter(bob, "alice").await?;
    let taken = "That name is taken in this room. Please choose another.";
    bob.expect(error, json!(taken)).await?;
    bob.screenshot("taken").await?;

    enter(bob, "bob").await?;
    bob.expect(PHASE, json!("online")).await?;
    bob.expect(MEMBERS, json!(["bob", "alice"])).await?;
    alice.expect(MEMBERS, json!(["alice", "bob"])).await?;
    let note = "document.querySelector('#lines .note:last-child').textContent";
    alice.expect(note, json!("bob joined")).await
}

async fn they_talk(alice: &Tab<'_>, bob: &Tab<'_>) -> anyhow::Result<()> {
    let hello = "Hello alice, 你好! See https://example.org/a?b=1.";
    // Text that would do harm if it were ever more than text.
    let markup = "<img src=x onerror=\"document.title='owned'\"> <b>plain</b> & so on";
    send(bob, hello).await?;
    alice.expect(TEXTS, json!([hello])).await?;
    send(alice, markup).await?;
    for tab in [alice, bob] {
        tab.expect(TEXTS, json!([hello, markup])).await?;
        tab.expect("document.querySelectorAll('#lines img, #lines b').length", json!(0)).await?;
        tab.expect("document.querySelectorAll('#lines .own .bubble').length", json!(1)).await?;
        tab.expect("document.getElementById('outbox').hidden", json!(true)).await?;
        let link = "[...document.querySelectorAll('#lines a')].map(e => [e.href, e.rel])";
        let rel = "noopener noreferrer nofollow";
        tab.expect(link, json!([["https://example.org/a?b=1", rel]])).await?;
    }
    // Two lines by keyboard: Shift+Enter breaks the line, Enter sends. Beyond the BMP a driver
    // cannot type; the page can.
    let shift_enter = "one\u{e008}\u{e007}\u{e008}two\u{e007}";
    bob.fill("#draft", shift_enter).await?;
    alice.expect(&format!("{TEXTS}.at(-1)"), json!("one\ntwo")).await?;
    let orange = "(() => { const field = document.getElementById('draft'); field.value = '🍊'; \
                  field.dispatchEvent(new Event('input')); })()";
    alice.value(orange).await?;
    alice.click("#send").await?;
    bob.expect(&format!("{TEXTS}.at(-1)"), json!("🍊")).await
}

async fn they_whisper(alice: &Tab<'_>, bob: &Tab<'_>) -> anyhow::Result<()> {
    let whispers =
        "[...document.querySelectorAll('#lines .whisper .text')].map(e => e.textContent)";
    let tag = "document.querySelector('#lines .group:last-child .tag')?.textContent ?? ''";
    alice.click("#members-list li[data-name=bob] button").await?;
    alice
        .expect("document.getElementById('whispering').textContent.trim()", json!("Whisper to bob"))
        .await?;
    send(alice, "only for you").await?;
    bob.expect(whispers, json!(["only for you"])).await?;
    bob.expect(tag, json!("whispers to you")).await?;
    alice.expect(whispers, json!(["only for you"])).await?;
    alice.expect(tag, json!("Whisper to bob")).await?;

    send(bob, "/w alice understood").await?;
    alice.expect(whispers, json!(["only for you", "understood"])).await?;
    send(bob, "/w carol hi").await?;
    let error = "document.getElementById('write-error').textContent";
    bob.expect(error, json!("carol is not in this room.")).await?;
    alice.click("#whisper-stop").await
}

/// What the original told by a pop-up, with its "no tip again", and the number in the title.
async fn who_looks_away_is_told(alice: &Tab<'_>, bob: &Tab<'_>) -> anyhow::Result<()> {
    // A page with the driver's hand on it is never hidden.
    let look = |away: bool| {
        format!(
            "(() => {{ Object.defineProperty(document, 'hidden', {{ value: {away}, configurable: \
             true }}); document.dispatchEvent(new Event('visibilitychange')); }})()"
        )
    };
    let title = "document.title";
    let notices = "[...document.querySelectorAll('.notice.message, .notice.whisper')]\
                   .map(e => e.querySelector('.notice-words').innerText)";
    alice.value(&look(true)).await?;
    send(bob, "are you there?").await?;
    send(bob, "/w alice hello?").await?;
    alice.expect(title, json!("(2) #browser · Tangelo")).await?;
    let told = json!(["bob says\nare you there?", "bob whispers to you\nhello?"]);
    alice.expect(notices, told).await?;
    alice.expect("document.querySelectorAll('#lines .unread').length", json!(1)).await?;
    alice.screenshot("away").await?;
    alice.value(&look(false)).await?;
    alice.expect(title, json!("#browser · Tangelo")).await?;

    alice.click(".notice-never").await?;
    let plain = "[...document.querySelectorAll('.notice')].map(e => e.innerText)";
    alice.expect(plain, json!(["Pop-ups are off. You find them in the settings."])).await?;
    alice.value(&look(true)).await?;
    send(bob, "never mind").await?;
    alice.expect(title, json!("(1) #browser · Tangelo")).await?;
    alice.expect(notices, json!([])).await?;
    alice.value(&look(false)).await?;
    alice.expect("localStorage.getItem('tangelo.notices')", json!("off")).await
}

/// Everything fits a narrow window, and the members come as a drawer that keys can leave.
async fn a_phone_has_room_for_all(alice: &Tab<'_>) -> anyhow::Result<()> {
    let (width, height) = alice.size().await?;
    alice.resize(400, 800).await?;
    let overflow = "document.documentElement.scrollWidth - window.innerWidth";
    alice.expect(overflow, json!(0)).await?;
    let inert = "document.getElementById('members').inert";
    alice.expect(inert, json!(true)).await?;
    alice.click("#people").await?;
    alice.expect(inert, json!(false)).await?;
    alice.expect("document.activeElement.id", json!("members-close")).await?;
    alice.screenshot("phone").await?;
    alice.press("\u{e00c}").await?;
    alice.expect(inert, json!(true)).await?;
    alice.expect("document.activeElement.id", json!("people")).await?;
    alice.resize(width, height).await
}

async fn one_leaves(alice: &Tab<'_>, bob: &Tab<'_>) -> anyhow::Result<()> {
    bob.click("#leave").await?;
    bob.expect("document.getElementById('chat').hidden", json!(true)).await?;
    bob.expect("document.getElementById('name').value", json!("bob")).await?;
    alice.expect(MEMBERS, json!(["alice"])).await?;
    let note = "document.querySelector('#lines .note:last-child').textContent";
    alice.expect(note, json!("bob left")).await
}

/// Kills the connector that alice is on while carol talks at another. Alice's page comes back by
/// itself: it misses nothing and shows nothing twice, and nobody hears that she was away.
async fn a_lost_connector_is_replaced(
    cluster: &mut Cluster,
    alice: &Tab<'_>,
) -> anyhow::Result<()> {
    // The page knows; the gate may name another by now, as it spreads its answers.
    let address = alice.value("document.getElementById('status').dataset.connector").await?;
    let address = address.as_str().context("the page tells its connector")?.to_owned();
    let is_hers = |node: &&Node| node.listen().to_string() == address;
    let (hers, others): (Vec<_>, Vec<_>) = cluster.of(Role::Connector).partition(is_hers);
    let connector = hers.first().context("the address is a connector's")?.name().to_owned();
    let other = others.first().context("there is another")?.listen();
    let options = Options { modern: true, ..Options::default() };
    let mut carol = Client::connect(other, &options).await?;
    carol.join("carol", "browser", None).await?;
    alice.expect(MEMBERS, json!(["alice", "carol"])).await?;

    let theirs = "[...document.querySelectorAll('#lines .theirs .text')].map(e => e.textContent)";
    let mut wanted = alice.value(theirs).await?;
    let wanted = wanted.as_array_mut().context("texts are a list")?;
    let mut talk = async |carol: &mut Client, words: &str| {
        for number in 0..20 {
            let text = format!("{words} {number}");
            carol.say(&text, "*", &text).await?;
            wanted.push(text.into());
        }
        carol.say(words, "alice", words).await?;
        wanted.push(words.into());
        anyhow::Ok(())
    };
    talk(&mut carol, "before").await?;
    cluster.kill(&connector)?;
    talk(&mut carol, "at once").await?;
    let resumed = "document.querySelectorAll('#lines .resumed').length";
    // It may be back before we look.
    alice.expect(&format!("{PHASE} !== 'online' || {resumed} > 0"), json!(true)).await?;
    send(alice, "written while away").await?;
    talk(&mut carol, "a little later").await?;
    alice.expect(PHASE, json!("online")).await?;
    alice.expect(resumed, json!(1)).await?;
    talk(&mut carol, "after").await?;
    alice.expect(theirs, json!(wanted)).await?;
    let own = format!("{TEXTS}.filter(text => text === 'written while away').length");
    alice.expect(&own, json!(1)).await?;
    alice.expect("document.getElementById('outbox').hidden", json!(true)).await?;
    alice.expect("document.querySelectorAll('#lines .missing').length", json!(0)).await?;
    alice.screenshot("back").await?;

    hears_of_nobody(&mut carol, "end").await?;
    a_page_loaded_again_goes_on(alice, &mut carol).await?;
    a_copy_leaves_the_first_its_place(alice, &mut carol).await
}

/// Says something, and hears nobody come or go up to that.
async fn hears_of_nobody(carol: &mut Client, text: &str) -> anyhow::Result<()> {
    carol.say(text, "*", text).await?;
    loop {
        match carol.next().await? {
            Event::Push(Push::Chat { text: heard, .. }) if heard == text => return Ok(()),
            Event::Push(Push::Chat { .. }) | Event::Answer { .. } => {}
            Event::Push(push) => anyhow::bail!("carol hears {push:?}"),
        }
    }
}

/// What the page shows, in order: the words of people with their times, and of the page.
const LINES: &str = "[...document.querySelectorAll('#lines .bubble, #lines .note:not(.resumed)')]\
                     .map(e => `${e.title} ${e.innerText}`)";

async fn a_page_loaded_again_goes_on(alice: &Tab<'_>, carol: &mut Client) -> anyhow::Result<()> {
    alice.expect(&format!("{TEXTS}.at(-1)"), json!("end")).await?;
    for turn in ["once", "twice"] {
        let (shown, count) = (alice.value(LINES).await?, alice.count(LINES).await?);
        let texts = alice.count(TEXTS).await?;
        // What is said in the moment of it is sent by one page or the other.
        let sends = format!(
            "(() => {{ const field = document.getElementById('draft'); field.value = '{turn}'; \
             field.dispatchEvent(new Event('input')); document.getElementById('send').click(); \
             location.reload(); }})()"
        );
        alice.value(&sends).await?;
        let missed = format!("while she is away {turn}");
        carol.say(&missed, "*", &missed).await?;
        alice.expect(PHASE, json!("online")).await?;
        // Which of the two came first is for the room to say.
        let new = format!("{TEXTS}.slice({texts}).sort()");
        alice.expect(&new, json!([turn, missed])).await?;
        alice.expect(&format!("{LINES}.slice(0, {count})"), shown).await?;
        alice.expect("document.getElementById('outbox').hidden", json!(true)).await?;
        alice.expect("document.querySelectorAll('#lines .missing').length", json!(0)).await?;
        alice.expect(MEMBERS, json!(["alice", "carol"])).await?;
    }
    alice.screenshot("again").await?;
    hears_of_nobody(carol, "loaded again").await
}

/// A tab that is duplicated comes with all that the first remembers.
async fn a_copy_leaves_the_first_its_place(
    alice: &Tab<'_>,
    carol: &mut Client,
) -> anyhow::Result<()> {
    alice.expect(&format!("{TEXTS}.at(-1)"), json!("loaded again")).await?;
    let copy = alice.copy().await?;
    let banner = "document.getElementById('banner-text').textContent";
    let elsewhere = json!("This room is open under your name in another tab or window.");
    copy.expect(banner, elsewhere.clone()).await?;
    alice.expect(PHASE, json!("online")).await?;
    copy.screenshot("copy").await?;
    hears_of_nobody(carol, "to the first").await?;
    alice.expect(&format!("{TEXTS}.at(-1)"), json!("to the first")).await?;
    // Its person wants it to go on here.
    copy.click("#banner-tools button").await?;
    copy.expect(PHASE, json!("online")).await?;
    let wanted = alice.value(TEXTS).await?;
    copy.expect(TEXTS, wanted).await?;
    alice.expect(banner, elsewhere).await?;
    hears_of_nobody(carol, "to the copy").await?;
    copy.expect(&format!("{TEXTS}.at(-1)"), json!("to the copy")).await?;
    copy.click("#leave").await?;
    copy.close().await
}

async fn the_page_speaks_chinese(bob: &Tab<'_>) -> anyhow::Result<()> {
    bob.click(".door [data-language='zh-CN']").await?;
    let label = "document.querySelector('label[for=name]').textContent";
    bob.expect(label, json!("你的名字")).await?;
    bob.expect("document.documentElement.lang", json!("zh-CN")).await?;
    bob.click(".door [data-theme-choice=dark]").await?;
    bob.expect("document.documentElement.dataset.theme", json!("dark")).await?;
    bob.screenshot("door").await?;
    Ok(())
}
