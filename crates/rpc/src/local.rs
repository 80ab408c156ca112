//! Links between processes of one machine, past its network.
//!
//! A chat also listens at a socket of the Unix domain that is named after its incarnation, and a
//! connector looks there before it dials. What two processes say to each other so is copied once
//! and passes neither TCP nor the rules of a firewall, which is a good part of what a message costs
//! on its way through three processes (`docs/performance-log.md`).
//!
//! The name is an abstract one (`unix(7)`): it is no file, goes with its socket, and is seen in one
//! network namespace only. So a connector in another container or on another machine finds nobody
//! there and takes the network; and an incarnation, drawn at random, is nobody else's name. Both
//! ends make sure that the other runs as the same user, as no file does it for them; the cluster's
//! token is asked for as ever.

mod socket;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use model::Incarnation;
pub use socket::Socket;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tokio_util::either::Either;

/// Where a chat listens. The zero byte at the beginning makes the name an abstract one.
fn name(chat: Incarnation) -> String {
    format!("\0tangelo/link/{:x}", chat.0)
}

/// The user as whom this process runs, as others see it.
fn own_user() -> io::Result<u32> {
    let (end, _other) = UnixStream::pair()?;
    Ok(end.peer_cred()?.uid())
}

/// Where connectors of this machine come in.
#[derive(Debug)]
pub struct Listener {
    connections: UnixListenerStream,
    user: u32,
}

impl Listener {
    /// Listens as this chat.
    ///
    /// # Errors
    ///
    /// If the system has no abstract names, or forbids them.
    pub fn bind(chat: Incarnation) -> io::Result<Self> {
        let connections = UnixListenerStream::new(UnixListener::bind(name(chat))?);
        Ok(Self { connections, user: own_user()? })
    }
}

/// Who comes in over the network, or there.
pub fn beside(
    network: impl Stream<Item = io::Result<TcpStream>>,
    local: Option<Listener>,
) -> impl Stream<Item = io::Result<Either<TcpStream, Socket>>> {
    let local: Pin<Box<dyn Stream<Item = _> + Send>> = match local {
        Some(listener) => Box::pin(listener.map(|connection| connection.map(Either::Right))),
        None => Box::pin(tokio_stream::empty()),
    };
    network.map(|connection| connection.map(Either::Left)).merge(local)
}

impl Stream for Listener {
    type Item = io::Result<Socket>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let connection = ready!(Pin::new(&mut self.connections).poll_next(context));
            let Some(connection) = connection else { return Poll::Ready(None) };
            let checked = connection.and_then(|it| Ok((it.peer_cred()?.uid() == self.user, it)));
            match checked {
                Ok((true, connection)) => return Poll::Ready(Some(Socket::new(connection))),
                // Another user's process is turned away.
                Ok((false, _)) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// Connects to a chat of this machine and user; nothing, if there is none.
pub(crate) async fn connect(chat: Incarnation) -> Option<Socket> {
    let connection = UnixStream::connect(name(chat)).await.ok()?;
    let is_ours = connection.peer_cred().ok()?.uid() == own_user().ok()?;
    if is_ours { Socket::new(connection).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_stream::pending;

    use super::*;

    /// A life of a node that no other test has.
    fn life(number: u64) -> Incarnation {
        Incarnation((u64::from(std::process::id()) << 8) | number)
    }

    #[tokio::test]
    async fn a_chat_of_this_machine_is_found_while_it_lives() {
        let chat = life(1);
        assert!(connect(chat).await.is_none(), "nobody listens yet");
        {
            let mut incoming = Box::pin(beside(pending(), Some(Listener::bind(chat).unwrap())));
            let mut here = connect(chat).await.unwrap();
            let mut there = incoming.next().await.unwrap().unwrap();
            assert!(matches!(there, Either::Right(_)));
            here.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            there.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");
            assert!(connect(life(2)).await.is_none(), "another life is another name");
        }
        assert!(connect(chat).await.is_none(), "the name goes with its socket");
    }

    #[tokio::test]
    async fn the_network_goes_on_beside_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let mut incoming = Box::pin(beside(network, Some(Listener::bind(life(3)).unwrap())));
        let _there = TcpStream::connect(address).await.unwrap();
        assert!(matches!(incoming.next().await, Some(Ok(Either::Left(_)))));
        let _here = connect(life(3)).await.unwrap();
        assert!(matches!(incoming.next().await, Some(Ok(Either::Right(_)))));
    }

    #[tokio::test]
    async fn a_name_is_one_chats() {
        let _first = Listener::bind(life(4)).unwrap();
        let second = Listener::bind(life(4)).err().map(|error| error.kind());
        assert_eq!(second, Some(io::ErrorKind::AddrInUse));
    }
}
