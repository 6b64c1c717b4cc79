//! Checks the bytes from the broker before lapin parses them. Every connection of the program reads through a
//! [`ScreenedStream`] ([`connect`] is the only place that opens one).
//!
//! lapin's parser recurses into nested headers without a limit, which overflows its thread's stack. It also closes the
//! connection over a short string that is not UTF-8. Any sender can publish both. So each frame is checked here first,
//! without recursion. Properties that lapin could not parse are replaced by a mark ([`is_unreadable`]), and the message is
//! delivered like any other. Its consumer rejects it, and the broker itself carries the original on.

mod readable;

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures::{
    Stream,
    io::{AsyncRead, AsyncWrite},
};
use lapin::{
    AsyncTcpStream, BasicProperties, Connection, ConnectionProperties,
    tcp::{AMQPUriTcpExt, TLSConfig},
    types::{
        AMQPValue,
        parsing::{ParserResult, parse_field_table},
    },
    uri::AMQPUri,
};
use std::{
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, LazyLock, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Bytes that are read at once.
const READ_SIZE: usize = 64 * 1024;
/// Bytes of a frame before its payload: its type, channel and size (AMQP 0-9-1, section 4.2.3).
const FRAME_HEAD: usize = 7;
/// Bytes of a content header before its properties: class, weight and the body's size (section 4.2.6.1).
const BEFORE_PROPERTIES: usize = 12;
const FRAME_END: u8 = 0xce;
/// Bytes with which a broker answers that speaks another version of the protocol.
const PROTOCOL_HEADER: usize = 8;
/// The flag of `cluster_id`, which AMQP 0-9-1 reserves and no client sets.
const CLUSTER_ID: u16 = 1 << 2;

/// Replaces properties that lapin cannot parse: a `cluster_id` that no sender can know.
static MARK: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().simple().to_string());

/// Whether the message's own properties could not be decoded, and were replaced.
pub(super) fn is_unreadable(properties: &BasicProperties) -> bool {
    properties.cluster_id().as_ref().is_some_and(|id| id.as_str() == *MARK)
}

#[cfg(test)]
pub(super) fn mark() -> &'static str {
    &MARK
}

/// What a broker sends of itself when a connection begins; empty until then.
#[derive(Debug, Clone, Default)]
pub struct BrokerVersion {
    version: Arc<OnceLock<String>>,
    cluster: Arc<OnceLock<String>>,
}

impl BrokerVersion {
    /// For example `3.10.8`.
    pub fn get(&self) -> Option<&str> {
        self.version.get().map(String::as_str)
    }

    /// The name of its cluster, if an operator has set one. Without that, each node of a cluster reports a name of its own,
    /// `rabbit@host`.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.get().map(String::as_str).filter(|name| !name.contains('@'))
    }
}

/// Opens a connection whose bytes are checked; `version` is set to the broker's.
#[expect(clippy::disallowed_methods, reason = "the one place that opens connections, and screens them")]
pub(super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    version: BrokerVersion,
) -> lapin::Result<Connection> {
    let frame_max = uri.query.frame_max.unwrap_or_default();
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), ScreeningReactor(tokio.clone())));
    // With `amqps`, the bytes are checked after TLS has decrypted them.
    let open = async move |uri: AMQPUri, _: Runtime<RuntimeParts<Tokio, ScreeningReactor>>| {
        let tokio = Runtime::new(tokio.clone());
        let stream = uri.connect_with_config_async(TLSConfig::default(), &tokio).await?;
        let screen = Screen::new(frame_max, version.clone());
        Ok(AsyncTcpStream::Plain(ScreenedStream { stream, screen }))
    };
    Connection::connector(uri, runtime, open, properties).await
}

/// For a fuzzing target: compares our check of properties with lapin's parser. Properties that may be nested too deep for
/// lapin are not given to it.
pub fn properties(bytes: &[u8]) {
    let is_readable = readable::properties(bytes);
    let nested = bytes.iter().filter(|b| matches!(b, b'A' | b'F')).count();
    if !is_readable && nested > readable::MAX_DEPTH {
        return;
    }
    let parsed = lapin::protocol::basic::parse_properties(bytes);
    let whole = parsed.ok().filter(|(rest, _)| rest.is_empty());
    assert_eq!(is_readable, whole.is_some(), "{bytes:?}");
    if let Some((_, properties)) = whole {
        assert!(!is_unreadable(&properties));
        let envelope = super::delivery::read(&properties, Vec::new());
        let _ = (envelope.sha256(), envelope.age(std::time::SystemTime::now()), envelope.expiration_limit());
        let _ = (envelope.traceparent(), envelope.idempotency_key(), envelope.reply_correlation());
    }
}

/// The bytes that lapin reads when these bytes come in pieces of at most `piece`, from a broker whose largest frame is the
/// default.
pub(super) fn screened(bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let mut screen = Screen::new(128 * 1024, BrokerVersion::default());
    let (mut out, mut into) = (Vec::new(), vec![0; piece]);
    for piece in bytes.chunks(piece) {
        let room = screen.room();
        room[..piece.len()].copy_from_slice(piece);
        screen.received(piece.len())?;
        loop {
            let taken = screen.take(&mut into);
            if taken == 0 {
                break;
            }
            out.extend_from_slice(&into[..taken]);
        }
    }
    Ok(out)
}

type TokioStream = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// Tokio's reactor, with streams that are checked.
#[derive(Debug, Clone)]
struct ScreeningReactor(Tokio);

impl Reactor for ScreeningReactor {
    type TcpStream = ScreenedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// lapin registers no sockets.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<ScreenedStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(addr);
        async move {
            let stream = AsyncTcpStream::Plain(connecting.await?);
            Ok(ScreenedStream { stream, screen: Screen::new(0, BrokerVersion::default()) })
        }
    }
}

/// A stream that yields only frames that lapin can parse.
struct ScreenedStream {
    stream: TokioStream,
    screen: Screen,
}

impl AsyncRead for ScreenedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, screen } = &mut *self;
        loop {
            let passed = screen.take(into);
            if passed > 0 || into.is_empty() {
                return Poll::Ready(Ok(passed));
            }
            let read = ready!(Pin::new(&mut *stream).poll_read(context, screen.room()))?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            screen.received(read)?;
        }
    }
}

impl AsyncWrite for ScreenedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// The part of the stream that the next unchecked byte belongs to.
#[derive(Debug, Clone, Copy)]
enum StreamPart {
    Start,
    Frame,
    /// The rest of a frame that is not parsed, in bytes.
    Pass(usize),
    /// The rest of a content header that has been replaced, in bytes.
    Skip(usize),
}

/// Bytes between the socket and lapin, at most as many as the largest frame has.
struct Screen {
    /// `taken..checked` may be read by lapin; `checked..filled` is not complete yet.
    bytes: Vec<u8>,
    taken: usize,
    checked: usize,
    filled: usize,
    next: StreamPart,
    /// Bytes of the largest frame that lapin accepts.
    frame_max: usize,
    version: BrokerVersion,
}

impl Screen {
    /// `frame_max` is the one that we propose, or 0.
    fn new(frame_max: u32, version: BrokerVersion) -> Self {
        let mut screen = Self {
            bytes: Vec::new(),
            taken: 0,
            checked: 0,
            filled: 0,
            next: StreamPart::Start,
            frame_max: usize::MAX,
            version,
        };
        screen.limit_frames(frame_max);
        screen
    }

    /// In AMQP, 0 means no limit.
    fn limit_frames(&mut self, frame_max: u32) {
        let limit = usize::try_from(frame_max).unwrap_or(usize::MAX);
        if limit > 0 {
            self.frame_max = self.frame_max.min(limit);
        }
    }

    /// Copies checked bytes into `into`, and returns their number.
    fn take(&mut self, into: &mut [u8]) -> usize {
        let length = into.len().min(self.checked - self.taken);
        into[..length].copy_from_slice(&self.bytes[self.taken..self.taken + length]);
        self.taken += length;
        length
    }

    /// The buffer for the socket's next bytes. Drops the bytes that lapin has read.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.checked -= self.taken;
        self.taken = 0;
        if self.bytes.len() < self.filled + READ_SIZE / 2 {
            self.bytes.resize(self.filled + READ_SIZE, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// `count` bytes were written into [`Self::room`].
    fn received(&mut self, count: usize) -> io::Result<()> {
        self.filled += count;
        while self.check()? {}
        Ok(())
    }

    /// Checks the next part. Whether there may be more to check.
    fn check(&mut self) -> io::Result<bool> {
        let unchecked = self.filled - self.checked;
        if unchecked == 0 {
            return Ok(false);
        }
        match self.next {
            StreamPart::Start => {
                let first = self.bytes[self.checked];
                self.next = if first == b'A' { StreamPart::Pass(PROTOCOL_HEADER) } else { StreamPart::Frame };
            }
            StreamPart::Frame => return self.check_frame(unchecked),
            StreamPart::Pass(left) => {
                let passed = left.min(unchecked);
                self.checked += passed;
                self.next = if passed == left { StreamPart::Frame } else { StreamPart::Pass(left - passed) };
            }
            StreamPart::Skip(left) => {
                let skipped = left.min(unchecked);
                self.replace(skipped, &[]);
                self.next =
                    if skipped == left { StreamPart::Frame } else { StreamPart::Skip(left - skipped) };
            }
        }
        Ok(true)
    }

    fn check_frame(&mut self, unchecked: usize) -> io::Result<bool> {
        let frame = &self.bytes[self.checked..self.filled];
        let &[kind, _, _, a, b, c, d, ..] = frame else { return Ok(false) };
        let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let whole = size.saturating_add(FRAME_HEAD + 1);
        match kind {
            // A body, or a heartbeat: lapin parses nothing in it.
            3 | 8 => self.next = StreamPart::Pass(whole),
            2 if whole > self.frame_max => {
                if unchecked < FRAME_HEAD + BEFORE_PROPERTIES {
                    return Ok(false);
                }
                let mark = marked(frame).ok_or_else(malformed)?;
                self.replace(FRAME_HEAD + BEFORE_PROPERTIES, &mark);
                self.checked += mark.len();
                self.next = StreamPart::Skip(whole - FRAME_HEAD - BEFORE_PROPERTIES);
            }
            1 if whole > self.frame_max => return Err(malformed()),
            1 | 2 if unchecked < whole => return Ok(false),
            2 => {
                let properties =
                    frame.get(FRAME_HEAD + BEFORE_PROPERTIES..whole - 1).ok_or_else(malformed)?;
                if readable::properties(properties) {
                    self.checked += whole;
                } else {
                    let mark = marked(frame).ok_or_else(malformed)?;
                    self.replace(whole, &mark);
                    self.checked += mark.len();
                }
            }
            1 => {
                self.check_method(whole)?;
                self.checked += whole;
            }
            _ => return Err(malformed()),
        }
        Ok(true)
    }

    /// Replaces the first `count` unchecked bytes.
    fn replace(&mut self, count: usize, by: &[u8]) {
        self.bytes.splice(self.checked..self.checked + count, by.iter().copied());
        self.filled = self.filled - count + by.len();
    }

    fn check_method(&mut self, whole: usize) -> io::Result<()> {
        let payload = &mut self.bytes[self.checked + FRAME_HEAD..self.checked + whole - 1];
        let Some((&mut [class_high, class, method_high, method], arguments)) =
            payload.split_first_chunk_mut()
        else {
            return Err(malformed());
        };
        match (u16::from_be_bytes([class_high, class]), u16::from_be_bytes([method_high, method])) {
            // connection.start: the broker's properties, after the protocol's version.
            (10, 10) => {
                let properties = arguments.get(2..).ok_or_else(malformed)?;
                let length = readable::table(properties).ok_or_else(malformed)?;
                let properties = &properties[..length];
                for (name, value) in
                    [("version", &self.version.version), ("cluster_name", &self.version.cluster)]
                {
                    if let Some(text) = text_in(properties, name) {
                        let _ = value.set(text);
                    }
                }
            }
            // connection.tune: lapin accepts no frame above the smaller of both `frame_max`.
            (10, 30) => {
                if let Some(&[_, _, a, b, c, d]) = arguments.first_chunk() {
                    self.limit_frames(u32::from_be_bytes([a, b, c, d]));
                }
            }
            // connection.close and channel.close: the code, and the broker's text, which may quote a sender's.
            (10, 50) | (20, 40) => readable::clean(arguments, &[2]),
            // basic.return, basic.deliver and basic.get-ok: exchange and routing key are the sender's.
            (60, 50) => readable::clean(arguments, &[2, 0, 0]),
            (60, 60) => readable::clean(arguments, &[0, 9, 0]),
            (60, 71) => readable::clean(arguments, &[9, 0]),
            _ => {}
        }
        Ok(())
    }
}

/// A content header with the channel, class and body size of this one, and the mark as its properties.
fn marked(frame: &[u8]) -> Option<Vec<u8>> {
    let (channel, header) = (frame.get(1..3)?, frame.get(FRAME_HEAD..FRAME_HEAD + BEFORE_PROPERTIES)?);
    let mark = MARK.as_bytes();
    let (length, size) = (u8::try_from(mark.len()).ok()?, header.len() + 2 + 1 + mark.len());
    let size = u32::try_from(size).ok()?.to_be_bytes();
    let parts = [&[2], channel, &size, header, &CLUSTER_ID.to_be_bytes(), &[length], mark, &[FRAME_END]];
    Some(parts.concat())
}

fn text_in(table: &[u8], name: &str) -> Option<String> {
    let parsed: ParserResult<_, _> = parse_field_table(table);
    match parsed.ok()?.1.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the broker's bytes are not AMQP 0-9-1")
}

#[cfg(test)]
mod tests;
