//! A worker's way to a server, whose lines can be cut, or carry nothing for a while.

use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep_until},
};
use url::Url;

/// Forwards a port of its own.
#[derive(Debug)]
pub struct Tunnel {
    /// The server's URL, by way of the tunnel.
    pub url: String,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    cuts: u64,
    /// Nothing passes before.
    open_from: Instant,
}

impl Tunnel {
    pub async fn to(server: &str) -> io::Result<Self> {
        let mut url = Url::parse(server).map_err(io::Error::other)?;
        let target = (url.host_str().unwrap_or("127.0.0.1").to_owned(), url.port().unwrap_or_default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let set = url.set_host(Some("127.0.0.1")).is_ok()
            && url.set_port(Some(listener.local_addr()?.port())).is_ok();
        assert!(set, "a server's URL has a host and a port");
        let state = watch::Sender::new(State { cuts: 0, open_from: Instant::now() });
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

    /// Cuts what goes through. Whoever connects again is let in.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Lets nothing through for so long, and loses nothing. A stall during another changes nothing.
    pub fn stall(&self, length: Duration) {
        self.state.send_modify(|state| {
            if state.open_from < Instant::now() {
                state.open_from = Instant::now() + length;
            }
        });
    }
}

/// Until one side ends, or the line is cut. Then both are reset, as a firewall does.
async fn forward(client: TcpStream, target: (String, u16), state: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect((target.0.as_str(), target.1)).await else { return };
    let (mut client, mut server) = (client, server);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let begun = state.borrow().cuts;
    let mut cut = state.clone();
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = carry(from_client, to_server, state.clone()) => false,
            _ = carry(from_server, to_client, state) => false,
            _ = cut.wait_for(|state| state.cuts > begun) => true,
        }
    };
    if is_cut {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction, until it ends.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1_024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let open_from = state.borrow().open_from;
        sleep_until(open_from).await;
        to.write_all(&buffer[..read]).await?;
    }
}
