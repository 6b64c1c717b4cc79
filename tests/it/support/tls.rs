//! A service behind TLS, whose certificate a CA of the test's own has signed.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener as AsyncListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer},
};

/// Takes TLS off and hands the bytes on, until the test's process ends.
pub struct TlsFront {
    /// The service's URL, by way of this.
    pub url: String,
    ca: PathBuf,
}

impl TlsFront {
    /// For the broker.
    pub fn of(broker: &str) -> Self {
        let mut url = url::Url::parse(broker).expect("a broker has a URL");
        let target = (url.host_str().expect("a broker has a host"), url.port().unwrap_or(5672));
        let target = target.to_socket_addrs().ok().and_then(|mut all| all.next()).expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        url.set_port(Some(listener.local_addr().expect("an address").port())).expect("a port can be set");
        url.set_host(Some("127.0.0.1")).expect("a host can be set");
        let url = url.as_str().replacen("amqp://", "amqps://", 1);

        let (config, authority) = certificates();
        let ca = std::env::temp_dir().join(format!("session-invite-ca-{}.pem", uuid::Uuid::new_v4()));
        std::fs::write(&ca, authority).expect("a file can be written");
        std::thread::spawn(move || serve(listener, target, config));
        Self { url, ca }
    }

    /// The file with the CA's certificate.
    pub fn ca(&self) -> &str {
        self.ca.to_str().expect("a path is text")
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.ca);
    }
}

/// A server's configuration, and the certificate of the CA that has signed its own, as PEM.
fn certificates() -> (ServerConfig, String) {
    let mut authority = CertificateParams::new([]).expect("a CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let authority_certificate = authority.self_signed(&authority_key).expect("a certificate");
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate().expect("a key");
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).and_then(|params| params.signed_by(&key, &issuer));
    let chain = vec![certificate.expect("a certificate").der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("a version of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    (config.expect("a certificate with its key"), authority_certificate.pem())
}

fn serve(listener: TcpListener, target: SocketAddr, config: ServerConfig) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a listener");
        let listener = AsyncListener::from_std(listener).expect("a listener");
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                copy_bidirectional(&mut client, &mut TcpStream::connect(target).await?).await
            });
        }
    });
}
