//! A way to etcd that can be cut.

use std::net::SocketAddr;

use daemon::Tasks;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Passes connections on, until it is cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    tasks: Tasks,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, tasks) = (watch::Sender::new(true), Tasks::new());
        let (spawner, token, state) = (tasks.clone(), tasks.token(), whole.subscribe());
        tasks.spawn("proxy", async move {
            while let Some(Ok((mut near, _))) = token.run_until_cancelled(listener.accept()).await {
                let mut state = state.clone();
                let token = token.clone();
                spawner.spawn("proxied", async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|whole| !*whole) => {}
                        () = token.cancelled() => {}
                    }
                });
            }
        });
        Self { address, whole, tasks }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("etcd://{}/{name}", self.address)
    }

    /// Ends all connections, and every new one at once.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}
