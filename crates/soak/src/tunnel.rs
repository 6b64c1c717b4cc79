//! A TCP proxy between a worker and a server. It can cut its connections, let them stall, or delay them.

use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use url::Url;

/// How many chunks of 16 KiB may be on their way in one direction of a connection.
const CHUNKS: usize = 64;

/// Forwards connections to its port.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The server's URL, with the tunnel's address.
    pub url: String,
    state: watch::Sender<TunnelState>,
}

#[derive(Debug, Clone, Copy)]
struct TunnelState {
    cuts: u64,
    /// No data passes before this time.
    open_from: Instant,
    /// Of each chunk, in each direction.
    delay: Duration,
}

impl Tunnel {
    pub(crate) async fn to(server: &str) -> io::Result<Self> {
        let mut url = Url::parse(server).map_err(io::Error::other)?;
        let target = (url.host_str().unwrap_or("127.0.0.1").to_owned(), url.port().unwrap_or_default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let set = url.set_host(Some("127.0.0.1")).is_ok()
            && url.set_port(Some(listener.local_addr()?.port())).is_ok();
        assert!(set, "a server's URL has a host and a port");
        let (open_from, delay) = (Instant::now(), Duration::ZERO);
        let state = watch::Sender::new(TunnelState { cuts: 0, open_from, delay });
        let tunnel = Self { url: url.into(), state: state.clone() };
        tokio::spawn(async move {
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(forward(client, target.clone(), state.subscribe()));
                }
            }
        });
        Ok(tunnel)
    }

    /// Cuts all open connections. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Holds all data back for this long. Nothing is lost. A stall during another one has no effect.
    pub(crate) fn stall(&self, length: Duration) {
        self.state.send_modify(|state| {
            if state.open_from < Instant::now() {
                state.open_from = Instant::now() + length;
            }
        });
    }

    /// Delays all data from now on by this long, in each direction.
    pub(crate) fn delay(&self, length: Duration) {
        self.state.send_modify(|state| state.delay = length);
    }
}

/// Forwards until one side closes, or the connection is cut. A cut resets both sides, as a firewall does.
async fn forward(client: TcpStream, target: (String, u16), state: watch::Receiver<TunnelState>) {
    let Ok(server) = TcpStream::connect((target.0.as_str(), target.1)).await else { return };
    let (mut client, mut server) = (client, server);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cuts_before = state.borrow().cuts;
    let mut cut = state.clone();
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = carry(from_client, to_server, state.clone()) => false,
            _ = carry(from_server, to_client, state) => false,
            _ = cut.wait_for(|state| state.cuts > cuts_before) => true,
        }
    };
    if is_cut {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Forwards one direction until it ends.
async fn carry(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    state: watch::Receiver<TunnelState>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::try_join!(take(from, sender, state.clone()), hand_on(to, receiver, state)).map(|_| ())
}

/// Reads chunks, and notes when each is due.
async fn take(
    mut from: impl AsyncRead + Unpin,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    state: watch::Receiver<TunnelState>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1_024];
    loop {
        let read = from.read(&mut buffer).await?;
        let due = Instant::now() + state.borrow().delay;
        if read == 0 || chunks.send((due, buffer[..read].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

async fn hand_on(
    mut to: impl AsyncWrite + Unpin,
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    state: watch::Receiver<TunnelState>,
) -> io::Result<()> {
    while let Some((due, chunk)) = chunks.recv().await {
        sleep_until(due).await;
        let open_from = state.borrow().open_from;
        sleep_until(open_from).await;
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}
