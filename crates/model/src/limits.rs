//! The bounds that users and operators meet, each with its unit and its reason. A queue between two
//! tasks has its own beside it.
//!
//! Relations between bounds are asserted at compile time at the end of the file.

use std::time::Duration;

// ---- what a client may send

/// Largest message from a client, in bytes, header included. Chat needs a hundredth of it; the
/// original had no limit and fanned out 4 MiB.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Largest text of one chat message, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Longest user or room name, in characters: what the original page allows.
pub const NAME_CHARS_MAX: usize = 20;
/// Longest user or room name between our own processes, in bytes: four per character, with
/// room for a wider configured rule.
pub const NAME_BYTES_MAX: usize = 256;
/// Deepest nesting of JSON from a client.
pub const JSON_DEPTH_MAX: usize = 32;
/// Longest route, in bytes: its length travels in one byte.
pub const ROUTE_BYTES_MAX: usize = 255;
/// Most packages in one WebSocket message. The original took one; clients that join them send a
/// handful.
pub const PACKAGES_PER_MESSAGE_MAX: usize = 64;
/// Largest answer to a handshake, in bytes: routes and schemas of an application, some 700 bytes
/// for the chat. It must fit into an empty queue twice.
pub const HANDSHAKE_BYTES_MAX: usize = 512 * 1024;
/// Largest HTTP request head, in bytes.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

// ---- how long a client may take

/// Time for the HTTP head, and again for the Pomelo handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the Unity client waits for the answer to its handshake: it notes that it is shaking
/// hands only after it has sent its own, and misses an answer that is quicker. Seen on a busy
/// machine in one of five first connections, and in none of 40 with this delay.
pub const UNITY_HANDSHAKE_DELAY: Duration = Duration::from_millis(20);
/// Time from the handshake to a successful `enter`; a socket that never enters holds memory
/// for nobody.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeat interval told to Pomelo binary clients: the original's 3 s.
pub const POMELO_HEARTBEAT: Duration = Duration::from_secs(3);
/// Heartbeat interval of Socket.IO, the original's: how often clients of 1.x and 2.x ping, and
/// how long a 0.9 client is left alone before it is asked for a sign of life.
pub const SOCKETIO_HEARTBEAT: Duration = Duration::from_secs(25);
/// How long after that a client of Socket.IO may stay silent before it is closed: the original's.
pub const SOCKETIO_PATIENCE: Duration = Duration::from_secs(60);
/// How long a poll of Socket.IO 0.9 hangs with nothing to say: the original's.
pub const SOCKETIO_POLL: Duration = Duration::from_secs(20);
/// How long a client of Socket.IO 0.9 that gives a poll up has to poll again. The original gave it
/// [`SOCKETIO_PATIENCE`] and more; but a page that is closed leaves only so, and is still seen by
/// its room that long. Libraries that give up poll again at once.
pub const SOCKETIO_RETURN: Duration = Duration::from_secs(5);
/// How long a session id that was given out waits for its client to use it: what the handshake of
/// Socket.IO 0.9 announces as the close timeout.
pub const SOCKETIO_HANDSHAKE_EXPIRY: Duration = Duration::from_secs(60);
/// Session ids given out and not used yet, at some 100 bytes each; past it handshakes are refused.
pub const SOCKETIO_HANDSHAKES_MAX: usize = 65_536;
/// How long a WebSocket that a polling session tries may take until the session moves to it.
pub const SOCKETIO_UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client of Socket.IO 1.x that has left, or was told to, may take to close the
/// connection: pages do at once, and the original waited for ever.
pub const SOCKETIO_FAREWELL: Duration = Duration::from_secs(3);
/// Largest body of a post that carries packets, in bytes: some messages, encoded twice.
pub const SOCKETIO_POST_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Packets in one post. A page that was offline for a moment posts a handful at once.
pub const SOCKETIO_POST_PACKETS_MAX: usize = 256;
/// Requests of one polling session that wait for its task; a further one waits too.
pub const SOCKETIO_REQUESTS_MAX: usize = 8;
/// Silence after which a session that has no heartbeat is closed: the original's limit for TCP.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long one write to a client may make no progress. Nothing is read from it meanwhile, so it
/// is shorter than the silence that a heartbeat allows.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one HTTP request that is no WebSocket, from its head to the head of its response.
pub const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closing connection may take to flush its last frames.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

// ---- what one client may cost

/// Items waiting for one slow reader, each a frame or several that came together; past it the
/// session is closed.
pub const SESSION_QUEUE_ITEMS_MAX: usize = 512;
/// Bytes waiting for one slow reader; past it the session is closed.
pub const SESSION_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Sends of one session not yet answered; past it a send is refused with `SlowDown`.
pub const SESSION_UNACKED_MAX: usize = 256;
/// Sustained sends per second of one session.
pub const SESSION_SENDS_PER_SECOND: u32 = 100;
/// Sends that one session may make at once after a pause.
pub const SESSION_SENDS_BURST: u32 = 200;
/// Clients that a connector lets in per second: a quarter of what one core does, which spends some
/// 0.25 ms on each, so that those who are in go on as before.
pub const ADMISSIONS_PER_SECOND: u32 = 1_000;
/// How long a client may wait for its turn to be let in. An old client knows no second try, so it
/// is worth a wait; and none gives a connection up so soon.
pub const ADMISSION_PATIENCE: Duration = Duration::from_secs(2);
/// Clients that may ask a gate per second: somewhat more than half of what one core answers, which
/// spends some 0.15 ms on each, so that a gate that hosts the registry has time for that.
pub const ENTRIES_PER_SECOND: u32 = 4_000;
/// How long a client may wait for its turn to ask a gate: nothing else of it is there to wait.
pub const ENTRY_PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a client is told to stay away, and the furthest slot that a gate gives out.
/// Past it everybody is told the same.
pub const ADMISSION_DELAY_MAX: Duration = Duration::from_secs(30);
/// How long a gate holds its answer to a client that cannot be told to wait.
pub const ENTRY_HELD_MAX: Duration = Duration::from_secs(1);
/// Answers that a gate holds at a time; past it they are given at once.
pub const ENTRIES_HELD_MAX: usize = 10_000;
/// Connections at one frontend. At some 5 KiB each they fit a large machine; the limit of open
/// files is usually lower.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// Connections from one client address at one frontend; enough for an office behind one
/// address translator.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 10_000;

// ---- rooms

/// Slots that room names hash to. A power of two well above any number of chat nodes, and few
/// enough that all owners fit in one registry answer.
pub const SHARD_COUNT: u16 = 1024;
/// Recent events kept per room, by the owner and by every relay.
pub const TAIL_EVENTS_MAX: usize = 1000;
/// Bytes of recent events kept per room.
pub const TAIL_BYTES_MAX: usize = 1024 * 1024;
/// Recent events that go with a snapshot: about what may be on its way to the other connectors
/// when a room's owner dies. Fewer than all, as a first member on a connector costs a snapshot.
pub const SNAPSHOT_EVENTS_MAX: usize = 256;
/// Bytes of these events.
pub const SNAPSHOT_BYTES_MAX: usize = 64 * 1024;
/// Largest room. A join past it is refused with `SlowDown`.
pub const ROOM_MEMBERS_MAX: usize = 100_000;
/// Sessions of one member, where it may have several: a person has a handful of devices, and a page
/// open some times. A join past it is refused with `SlowDown`.
pub const MEMBER_SESSIONS_MAX: usize = 32;
/// Above this many members a room's joins and leaves are not pushed one by one, but how many there
/// are.
pub const PRESENCE_MEMBERS_MAX: usize = 1_000;
/// How often at most the members of so large a room are told how many they are: it costs as much as
/// a message to all of them, and nobody counts a crowd by the second.
pub const PRESENCE_COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// Events that a newcomer that knows Tangelo is shown of what was said before.
pub const HISTORY_EVENTS_MAX: usize = 50;
/// Longest name that a client gives to a message, in characters: a UUID takes 36.
pub const MESSAGE_ID_CHARS_MAX: usize = 64;
/// How long a repeated message id is recognised.
pub const MESSAGE_ID_WINDOW: Duration = Duration::from_secs(300);
/// Message ids remembered per room, at some 150 bytes each; past it the oldest are forgotten.
pub const MESSAGE_IDS_MAX: usize = 4096;
/// How long a member that can come back stays when its connection is lost, before it leaves.
pub const RETURN_GRACE: Duration = Duration::from_secs(5);
/// How long after it left a member can come back and be told what it missed.
pub const RESUME_WINDOW: Duration = Duration::from_secs(120);
/// Members of a room that have left and may come back; past it the oldest are forgotten, and come
/// back as if they had been away for too long.
pub const DEPARTED_MAX: usize = 1000;
/// Rooms of one worker that nobody is in, kept for those who may come back; past it the oldest are
/// given up, and whoever comes back to one begins anew. As many as a busy worker has members.
pub const EMPTY_ROOMS_MAX: usize = 16_384;
/// Bytes that these rooms may keep alive: 64 of the largest.
pub const EMPTY_ROOMS_BYTES_MAX: usize = 64 * TAIL_BYTES_MAX;
/// How long a client that is told to try again later is told to wait.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long a member whose name a newcomer wants may take to show that it lives.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long that newcomer waits for its answer, whatever becomes of owners and links meanwhile:
/// [`PROBE_TIMEOUT`], and the ways there and back on a busy machine.
pub const PROBE_ANSWER_TIMEOUT: Duration = Duration::from_millis(2500);
/// How late the heartbeat of a client that cannot be asked may be before it no longer counts as a
/// sign of life: a network that is slow for a moment.
pub const PROBE_BEAT_SLACK: Duration = Duration::from_secs(1);
/// Newcomers to the rooms of one shard that wait for names, at some 200 bytes each; past it a
/// newcomer is refused as if the member had answered.
pub const PROBE_NEWCOMERS_MAX: usize = 256;
/// How long a member stays when its connector's link is lost, before it leaves.
pub const CONNECTOR_GRACE: Duration = Duration::from_secs(5);
/// How long a connector that is gone may be the only one that heard the last words of an owner
/// that others could not reach: until the owner is given up, and its members would have left.
pub const DEPARTURE_DOUBT: Duration = Duration::from_secs(10);
/// How long an opening shard waits for a live connector that does not attach.
pub const ATTACH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connector remembers a room that its last session has left, while it is attached to
/// the owner: long enough that what was acknowledged to that session survives the owner's death.
pub const RELAY_LINGER: Duration = Duration::from_secs(10);
/// How long a send or a join waits for an owner before it is answered with an error.
pub const OWNER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a relay waits before it attaches again to an owner that said it is not the owner.
pub const ATTACH_RETRY: Duration = Duration::from_millis(50);

// ---- between our own processes

/// Largest gRPC message between our processes, in bytes: the state of the largest room (its
/// members at some 40 bytes each, and a full tail) fits.
pub const LINK_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames put into one gRPC message at most.
pub const LINK_BATCH_FRAMES_MAX: usize = 256;
/// Frames waiting for one link; past it the link is cut and attaches again. An attach queues one
/// frame per room at once, so this also bounds the rooms of one connector at one chat.
pub const LINK_QUEUE_FRAMES_MAX: usize = 262_144;
/// Idle time after which an HTTP/2 ping is sent on a link.
pub const LINK_KEEPALIVE: Duration = Duration::from_millis(500);
/// How long that ping may stay unanswered before the peer is taken for dead.
pub const LINK_KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(700);
/// How long a chat's worker must have stood still until it takes its links for over. Connectors have
/// given them up after a silence of [`LINK_KEEPALIVE`] and [`LINK_KEEPALIVE_TIMEOUT`]; twice that,
/// and [`STANDSTILL_LOOK`], so that a machine that is merely busy costs no link that lives. The
/// lease has ended by then, too.
pub const STANDSTILL: Duration = Duration::from_millis(3500);
/// How often a worker that has nothing to do looks whether it stood still.
pub const STANDSTILL_LOOK: Duration = Duration::from_secs(1);
/// How long a chat that stood still reads what its links brought before it cuts those that have not
/// ended by themselves: it is all there, and a busy machine takes a moment.
pub const STANDSTILL_REST: Duration = Duration::from_millis(500);
/// Events waiting for one worker; a full queue holds back the sockets that fill it.
pub const WORKER_QUEUE_EVENTS_MAX: usize = 16_384;

// ---- registry

/// A node that says nothing for this long is gone.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often a node says that it lives.
pub const LEASE_BEAT: Duration = Duration::from_millis(750);
/// How long a node whose stream broke may take to come back before it counts as gone: a killed
/// process breaks its streams at once.
pub const LEASE_AFTER_BREAK: Duration = Duration::from_millis(700);
/// After a registry (re)start, how long it waits for nodes to report before it grants claims
/// on shards whose owner it does not know.
pub const REGISTRY_SETTLE: Duration = Duration::from_secs(2);
/// Bounded load: no node holds more than this many times the mean, in percent.
pub const LOAD_FACTOR_PERCENT: u32 = 125;
/// Most live nodes in one cluster.
pub const NODES_MAX: usize = 1024;
/// Points of one node on a hash ring: enough that the fullest of a handful of nodes holds a
/// tenth above the mean before the load bound cuts in, few enough that a ring is built in 100 µs.
pub const RING_POINTS_PER_NODE: usize = 160;
/// How often loads are told to the cluster: beats of many nodes become one change of the map.
pub const REGISTRY_LOAD_INTERVAL: Duration = Duration::from_millis(250);
/// Changes of the map kept for readers of the registry that lag; past it they get the whole map.
pub const REGISTRY_CHANGES_MAX: usize = 256;
/// Incarnations that the registry remembers as gone, so that it can tell them.
pub const REGISTRY_GONE_MAX: usize = 4 * NODES_MAX;
/// Largest message that the registry takes from a node, in bytes: a join with all shards owned
/// and all terms seen takes half of it.
pub const REGISTRY_REPORT_BYTES_MAX: usize = 64 * 1024;
/// Reports waiting for the stream to the registry; past it a beat is dropped, for the next one
/// says the same.
pub const REGISTRY_REPORTS_MAX: usize = 8;
/// Longest pause between two tries to reach the registry. A try takes up to as long again, and
/// every node must be back before the registry has settled.
pub const REGISTRY_RETRY_MAX: Duration = Duration::from_millis(500);
/// How long a try to join, a claim or a release may take.
pub const REGISTRY_CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Broken links that a node has not yet told to a registry that sees no streams; one that finds no
/// place is left out, as the end of the lease tells it too.
pub const BROKEN_LINKS_MAX: usize = NODES_MAX;
/// Shards, or nodes, changed in one transaction of etcd, which takes at most 128 operations by
/// default.
pub const ETCD_TXN_OPS: usize = 100;
/// Largest answer taken from etcd, in bytes: everything stored, of [`NODES_MAX`] nodes, is 2 MiB,
/// and a watch that catches up gets up to 1,000 changes at once.
pub const ETCD_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Members of etcd that one address may name.
pub const ETCD_ENDPOINTS_MAX: usize = 16;
/// How long one member of etcd may take before the next one is asked beside it: a member that
/// hangs costs no more than this.
pub const ETCD_NEXT_ENDPOINT: Duration = Duration::from_millis(150);
/// Longest address that a node advertises, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// How long a gate counts a session that it has sent to a connector and that the connector has
/// not reported: connecting, a beat and [`REGISTRY_LOAD_INTERVAL`] fit in.
pub const PLACED_SESSION_EXPIRY: Duration = Duration::from_secs(3);
/// How long a shard's place on the ring must be another chat before it is moved there, so that a
/// node that comes and goes moves nothing twice.
pub const MOVE_SETTLE: Duration = Duration::from_secs(1);
/// Shards that one chat moves away at the same time; their rooms pause for the move.
pub const MOVE_SHARDS_MAX: usize = 64;
/// The same for a chat that drains, which must be done well before [`DRAIN_TIMEOUT`] even if
/// nobody takes the shards.
pub const DRAIN_SHARDS_MAX: usize = 256;
/// How long a chat waits for moved shards to find their new owner before it moves the next ones.
pub const MOVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a chat waits before it repeats a claim or a release that failed.
pub const CLAIM_RETRY: Duration = Duration::from_millis(200);

// ---- processes

/// How long a process may take from SIGTERM to its end; a connector, after its sessions have ended.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// Shortest time over which a draining connector spreads the ends of its sessions.
pub const DRAIN_WINDOW_MIN: Duration = Duration::from_secs(2);
/// Longest such time, unless the operator says otherwise: 20,000 sessions at the pace of two others
/// that let in [`ADMISSIONS_PER_SECOND`] each. With [`CLOSE_TIMEOUT`] it is well within the 30 s that
/// supervisors give.
pub const DRAIN_WINDOW_MAX: Duration = Duration::from_secs(20);
/// How long the threads that serve clients and rooms may do nothing, while the one that beats
/// goes on, before the process takes itself for stuck and ends. Whole seconds.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

const _: () = {
    assert!(TEXT_BYTES_MAX < MESSAGE_BYTES_MAX);
    assert!(NAME_CHARS_MAX * 4 <= NAME_BYTES_MAX);
    assert!(SNAPSHOT_EVENTS_MAX <= TAIL_EVENTS_MAX && SNAPSHOT_BYTES_MAX <= TAIL_BYTES_MAX);
    assert!(MESSAGE_BYTES_MAX * 2 < SESSION_QUEUE_BYTES_MAX);
    assert!(HANDSHAKE_BYTES_MAX * 2 <= SESSION_QUEUE_BYTES_MAX);
    assert!(WRITE_TIMEOUT.as_millis() < 2 * POMELO_HEARTBEAT.as_millis());
    assert!(WRITE_TIMEOUT.as_millis() + CLOSE_TIMEOUT.as_millis() < DRAIN_TIMEOUT.as_millis());
    assert!(LEASE_BEAT.as_millis() * 3 < LEASE.as_millis());
    assert!(
        LEASE.as_millis() + CONNECTOR_GRACE.as_millis() + ATTACH_TIMEOUT.as_millis()
            <= DEPARTURE_DOUBT.as_millis()
    );
    assert!(LEASE_AFTER_BREAK.as_millis() < LEASE.as_millis());
    assert!(
        MOVE_TIMEOUT.as_millis() * (SHARD_COUNT as u128) / (DRAIN_SHARDS_MAX as u128)
            < DRAIN_TIMEOUT.as_millis() / 2
    );
    assert!(
        REGISTRY_RETRY_MAX.as_millis() + REGISTRY_CALL_TIMEOUT.as_millis()
            < REGISTRY_SETTLE.as_millis()
    );
    // A member of etcd that hangs is noticed and left for another while the lease lasts.
    assert!(LEASE_BEAT.as_millis() + 2 * REGISTRY_CALL_TIMEOUT.as_millis() < LEASE.as_millis());
    assert!(
        LINK_KEEPALIVE.as_millis() + LINK_KEEPALIVE_TIMEOUT.as_millis()
            < ATTACH_TIMEOUT.as_millis()
    );
    assert!(
        2 * (LINK_KEEPALIVE.as_millis() + LINK_KEEPALIVE_TIMEOUT.as_millis())
            + STANDSTILL_LOOK.as_millis()
            <= STANDSTILL.as_millis()
    );
    assert!(LEASE.as_millis() < STANDSTILL.as_millis());
    // Who waits for its turn is not taken for silent meanwhile, and not at all if it comes back.
    assert!(ADMISSION_PATIENCE.as_millis() < POMELO_HEARTBEAT.as_millis());
    assert!(ADMISSION_PATIENCE.as_millis() < RETURN_GRACE.as_millis());
    assert!(RETURN_GRACE.as_millis() < RESUME_WINDOW.as_millis());
    assert!(PROBE_TIMEOUT.as_millis() < PROBE_ANSWER_TIMEOUT.as_millis());
    // Who waits for a name is not taken for one that does not enter.
    assert!(PROBE_ANSWER_TIMEOUT.as_millis() < OWNER_TIMEOUT.as_millis());
    assert!(SHARD_COUNT.is_power_of_two());
};
