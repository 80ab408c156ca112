//! A process started for real, on free ports of the loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{net::SocketAddr, path::PathBuf};

use daemon::{BugError, Cause, CommonArgs, Process};
use model::{NodeId, Role};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn args(name: &str, addresses: Option<PathBuf>) -> CommonArgs {
    CommonArgs {
        threads: None,
        name: Some(NodeId::new(name).unwrap()),
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        log: None,
        log_format: daemon::LogFormat::Pretty,
        addresses,
        watch_stdin: false,
    }
}

/// The status code and the body of a GET.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_process_tells_how_it_is() {
    let process = Process::start(Role::Chat, &args("chat-7", None)).unwrap();
    assert_eq!(get(process.admin, "/healthz").await, (200, "alive\n".to_owned()));
    process.ready.unmet("registry", "not joined");
    assert_eq!(
        get(process.admin, "/readyz").await,
        (503, "registry: not joined\nstart: the process is starting\n".to_owned())
    );
    process.ready.started();
    process.ready.met("registry");
    assert_eq!(get(process.admin, "/readyz").await, (200, "ready\n".to_owned()));

    metrics::describe_counter!("test_things_total", "Things.");
    metrics::counter!("test_things_total").increment(3);
    metrics::histogram!("test_wait_seconds").record(0.003);
    let (status, text) = get(process.admin, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "# HELP test_things_total Things.",
        "test_things_total 3",
        "test_wait_seconds_bucket{le=\"0.005\"} 1",
        "tangelo_ready 1",
        "# TYPE process_cpu_seconds_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} not in {text}");
    }

    let (status, text) = get(process.admin, "/").await;
    assert_eq!(status, 404);
    assert!(text.contains("/readyz"), "{text}");

    process.stop.stop(Cause::Signal("SIGTERM"));
    assert_eq!(process.stopped().await, Cause::Signal("SIGTERM"));
    assert_eq!(process.ready.reasons(), ["drain: the process is draining"]);
    process.finish().await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_task_ends_the_process_as_failed() {
    let process = Process::start(Role::Chat, &args("chat-8", None)).unwrap();
    process.tasks.spawn("broken", async { panic!("on purpose") });
    assert_eq!(process.stopped().await, Cause::TaskPanicked);
    let error = process.finish().await.unwrap_err();
    assert!(error.downcast_ref::<BugError>().is_some());
}

#[tokio::test]
async fn addresses_are_written_for_who_started_it() {
    let file = std::env::temp_dir().join(format!("tangelo-addresses-{}", std::process::id()));
    let process = Process::start(Role::Chat, &args("chat-9", Some(file.clone()))).unwrap();
    let link = SocketAddr::from(([127, 0, 0, 1], 6050));
    process.announce("link", link).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["name"], "chat-9");
    assert_eq!(value["admin"], process.admin.to_string());
    assert_eq!(value["link"], "127.0.0.1:6050");
    std::fs::remove_file(&file).unwrap();
    process.stop.stop(Cause::SupervisorGone);
    process.finish().await.unwrap();
}

#[tokio::test]
async fn an_admin_port_in_use_is_explained() {
    let process = Process::start(Role::Chat, &args("chat-10", None)).unwrap();
    let mut second = args("chat-11", None);
    second.admin = process.admin;
    let error = Process::start(Role::Chat, &second).unwrap_err().to_string();
    assert!(error.contains("is in use"), "{error}");
    assert!(error.contains("choose another with --admin"), "{error}");
}

#[tokio::test]
async fn the_end_has_a_deadline() {
    let process = Process::start(Role::Chat, &args("chat-12", None)).unwrap();
    process.tasks.spawn("deaf", std::future::pending());
    process.stop.stop(Cause::Fatal("told so".to_owned()));
    tokio::time::pause();
    let error = process.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "told so");
}
