//! Every recorded client, against our cluster.
//!
//! The transcripts are not in this repository. They are looked for in `$TANGELO_TRANSCRIPTS`, and
//! in `shared/protocol/transcripts` beside the checkout.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod transcripts {
    pub(crate) mod table;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use e2e::{
    Cluster, Shape,
    transcript::{Difference, FOLDER, Stage, Transcript, folder, replay},
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
};
use transcripts::table::{self, Found};

/// Set where nothing may be skipped.
const REQUIRE_ALL: &str = "TANGELO_REQUIRE_ALL";
/// Set to write the table of differences anew.
const UPDATE: &str = "TANGELO_UPDATE";
/// Set to play only transcripts whose name holds this.
const ONLY: &str = "TANGELO_ONLY";
/// Transcripts played at once.
const AT_ONCE: usize = 8;

/// All transcripts, those that take long first.
fn read(folder: &Path) -> Vec<Transcript> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = env::var(ONLY).unwrap_or_default();
    let is_one = |file: &&PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.ends_with(".jsonl") && name.contains(&only)
    };
    let read = |file: &PathBuf| Transcript::read(file).unwrap();
    let mut transcripts: Vec<Transcript> = files.iter().filter(is_one).map(read).collect();
    transcripts.sort_by_key(|transcript| !transcript.is_long());
    transcripts
}

/// Plays all of them, several at once. Those that enter the same room take turns; those that
/// mostly wait do not count.
async fn play(stage: &Stage, transcripts: Vec<Transcript>) -> Found {
    let mut found = Found::new();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut rooms: BTreeMap<String, Arc<Mutex<()>>> = BTreeMap::new();
    let mut plays = JoinSet::new();
    for transcript in transcripts {
        if !transcript.can_be_played() {
            found.insert(transcript.name, None);
            continue;
        }
        let (stage, permits) = (stage.clone(), Arc::clone(&permits));
        // In order of the rooms' names, so that no two wait for each other.
        let its = transcript.rooms().into_iter();
        let its: Vec<_> = its.map(|room| Arc::clone(rooms.entry(room).or_default())).collect();
        let known: BTreeSet<Difference> = table::meant(&transcript.name).collect();
        plays.spawn(async move {
            let mut turns = Vec::new();
            for room in its {
                turns.push(room.lock_owned().await);
            }
            let permit = if transcript.is_long() { None } else { Some(permits.acquire().await) };
            let differences = replay(&stage, &transcript, &known).await;
            drop((permit, turns));
            (transcript.name, differences)
        });
    }
    while let Some(played) = plays.join_next().await {
        let (name, differences) = played.unwrap();
        match differences {
            Ok(differences) => drop(found.insert(name, Some(differences))),
            Err(error) => panic!("{name} cannot be played: {error:#}"),
        }
    }
    found
}

#[tokio::test]
async fn recorded_clients_get_the_bytes_of_the_original() {
    let Some(folder) = folder() else {
        assert!(env::var_os(REQUIRE_ALL).is_none(), "no transcripts; set {FOLDER}");
        eprintln!("skipped: transcripts (no shared/protocol/transcripts; set {FOLDER})");
        return;
    };
    let mut shape = Shape::new(3, 3);
    shape.connector_args = table::CONNECTOR_ARGS.map(str::to_owned).to_vec();
    let cluster = Cluster::start("transcripts", shape).await.unwrap();
    let stage = Stage { gate: cluster.gate(), connectors: cluster.connectors() };

    let found = play(&stage, read(&folder)).await;
    assert!(!found.is_empty(), "no transcripts in {}", folder.display());

    let mut wrong = String::new();
    for (name, differences) in &found {
        let Some(differences) = differences else {
            continue;
        };
        let meant: BTreeSet<Difference> = table::meant(name).collect();
        let is_meant = |it: &&Difference| it.is_refusal_instead_of_silence() || meant.contains(*it);
        for difference in differences.iter().filter(|it| !is_meant(it)) {
            wrong.push_str(&format!("\n{name}: {difference}"));
        }
        for difference in meant.iter().filter(|it| !differences.contains(it)) {
            wrong.push_str(&format!("\n{name}: no longer: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{} transcripts played:{wrong}", found.len());

    if env::var_os(ONLY).is_some() {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let text = table::page(&found);
    if env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(page.parent().unwrap()).unwrap();
        std::fs::write(&page, &text).unwrap();
    }
    let current = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(current == text, "docs/compatibility.md is old; run this test with {UPDATE}=1");
}
