//! A worker's way to a server, whose lines can be cut.

use std::io;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use url::Url;

/// Forwards a port of its own.
#[derive(Debug)]
pub struct Tunnel {
    /// The server's URL, by way of the tunnel.
    pub url: String,
    cuts: watch::Sender<u64>,
}

impl Tunnel {
    pub async fn to(server: &str) -> io::Result<Self> {
        let mut url = Url::parse(server).map_err(io::Error::other)?;
        let target = (url.host_str().unwrap_or("127.0.0.1").to_owned(), url.port().unwrap_or_default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let set = url.set_host(Some("127.0.0.1")).is_ok()
            && url.set_port(Some(listener.local_addr()?.port())).is_ok();
        assert!(set, "a server's URL has a host and a port");
        let tunnel = Self { url: url.into(), cuts: watch::Sender::default() };
        let cuts = tunnel.cuts.clone();
        tokio::spawn(async move {
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(forward(client, target.clone(), cuts.subscribe()));
                }
            }
        });
        Ok(tunnel)
    }

    /// Cuts what goes through. Whoever connects again is let in.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Until one side ends, or the line is cut. Then both are reset, as a firewall does.
async fn forward(mut client: TcpStream, target: (String, u16), mut cuts: watch::Receiver<u64>) {
    let Ok(mut server) = TcpStream::connect((target.0.as_str(), target.1)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = cuts.changed() => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
    }
}
