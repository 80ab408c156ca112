//! What is said before the first request.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wire::{
    Dialect,
    pomelo::{
        client as pomelo,
        handshake::BROWSER,
        packet::{HANDSHAKE_ACK, Kind},
    },
    socketio::client::{Opening, Said, read_frame, read_packet},
};

use crate::{
    chat::Options,
    codec::Codec,
    connection::{Connection, Unit},
    error::{Closed, Error, Result},
    modern,
    transport::Transport,
};

/// How long to wait for a server's handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Greets the server, or lets it greet.
///
/// # Errors
///
/// [`Error::Handshake`], [`Error::Http`] or [`Error::Closed`].
pub(crate) async fn shake_hands(connection: &mut Connection, options: &Options) -> Result<Codec> {
    match connection.transport().dialect() {
        Dialect::Pomelo | Dialect::PomeloCesu8 | Dialect::Pitaya | Dialect::Modern => {
            greet(connection, options).await
        }
        Dialect::SocketIo09 | Dialect::ModernSocketIo09 => {
            let patience = connection.patience().unwrap_or(HANDSHAKE_TIMEOUT);
            greeted(connection, read_frame).await?;
            Ok(Codec::socket_io_09(patience))
        }
        Dialect::SocketIo1 | Dialect::ModernSocketIo1 => {
            let read = |packet: &str| read_packet(packet).into_iter().collect();
            let opening = greeted(connection, read).await?;
            let opening = opening.ok_or_else(|| Error::Http("it says no id".to_owned()))?;
            Ok(Codec::socket_io_1(opening.interval.unwrap_or(opening.patience), opening.patience))
        }
    }
}

/// Tells a server of the binary protocol who is there, and hears how to speak.
async fn greet(connection: &mut Connection, options: &Options) -> Result<Codec> {
    let mut hello = options.hello.clone();
    if connection.transport() == Transport::Browser {
        hello.client_type = Some(BROWSER.to_owned());
    }
    if options.modern {
        modern::opt_in(&mut hello);
    } else {
        options.kept.introduce(&mut hello);
    }
    connection.send(&hello.encode()).map_err(Error::Closed)?;
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut answer = None;
    while answer.is_none() {
        let receive = connection.receive(|unit| {
            if let Unit::Package(packet) = unit
                && packet.kind == Kind::Handshake
                && answer.is_none()
            {
                answer = Some(pomelo::Codec::from_answer(packet.body, &hello, &options.kept));
            }
        });
        let received = timeout_at(deadline, receive).await;
        match received.unwrap_or(Err(Closed::Silent)) {
            Ok(()) => {}
            // A refusal is followed by the end.
            Err(_) if answer.is_some() => {}
            Err(closed) => return Err(Error::Closed(closed)),
        }
    }
    let codec = answer.transpose()?.ok_or(Error::Closed(Closed::Silent))?;
    // It goes out with the first request, or when the server is first listened to.
    connection.queue(&HANDSHAKE_ACK).map_err(Error::Closed)?;
    Ok(Codec::pomelo(codec))
}

/// Waits until a server of Socket.IO says that requests can be sent, and answers how the session
/// begins, if that was said.
async fn greeted(
    connection: &mut Connection,
    read: impl Fn(&str) -> Vec<Said>,
) -> Result<Option<Opening>> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let (mut opening, mut is_connected, mut is_over) = (None, false, false);
    while !is_connected {
        let receive = connection.receive(|unit| {
            let Unit::Text(text) = unit else { return };
            for said in str::from_utf8(text).map(&read).unwrap_or_default() {
                match said {
                    Said::Opened(said) => opening = Some(said),
                    Said::Connected => is_connected = true,
                    Said::Kick(_) | Said::End => is_over = true,
                    // Nothing was asked yet, and nobody is in a room.
                    Said::Answer { .. } | Said::Push { .. } => {}
                }
            }
        });
        let received = timeout_at(deadline, receive).await;
        received.unwrap_or(Err(Closed::Silent)).map_err(Error::Closed)?;
        if is_over {
            return Err(Error::Closed(Closed::ByServer));
        }
    }
    Ok(opening)
}
