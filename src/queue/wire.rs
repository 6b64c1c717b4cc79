//! The bytes from the broker, before the client library parses them. Every connection of the program reads through a
//! [`Screened`] stream ([`connect`] is the only place that opens one).
//!
//! The library's parser recurses into nested headers without a bound, which overflows its thread's stack, and ends the
//! connection over a short string that is not UTF-8. Both are anybody's to send. So each frame is looked at here
//! first, without recursion: properties that the library could not parse are replaced by a mark ([`is_unreadable`]),
//! and the message is delivered as any other. Its consumer refuses it, and the broker itself carries the original on.

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
const AT_ONCE: usize = 64 * 1024;
/// Of a frame before its payload: its type, channel and size (AMQP 0-9-1, section 4.2.3).
const HEAD: usize = 7;
/// Of a content header before its properties: class, weight and the body's size (section 4.2.6.1).
const BEFORE_PROPERTIES: usize = 12;
const FRAME_END: u8 = 0xce;
/// With which a broker answers that speaks another version of the protocol.
const PROTOCOL_HEADER: usize = 8;
/// The flag of `cluster_id`, which AMQP 0-9-1 reserves and no client sets.
const CLUSTER_ID: u16 = 1 << 2;

/// What stands in the place of properties that the library cannot parse: a `cluster_id` that no sender can know.
static MARK: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().simple().to_string());

/// Whether the message's properties could not be decoded; these are not its own then.
pub fn is_unreadable(properties: &BasicProperties) -> bool {
    properties.cluster_id().as_ref().is_some_and(|id| id.as_str() == *MARK)
}

#[cfg(test)]
pub(super) fn mark() -> &'static str {
    &MARK
}

/// What a broker says of itself as a connection begins.
#[derive(Debug, Clone, Default)]
pub struct Server(Arc<OnceLock<String>>);

impl Server {
    /// Its version, such as `3.10.8`.
    pub fn version(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Opens a connection whose bytes are screened; `server` learns what the broker says of itself.
#[expect(clippy::disallowed_methods, reason = "the one place that opens connections, and screens them")]
pub(super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    server: Server,
) -> lapin::Result<Connection> {
    let frame_max = uri.query.frame_max.unwrap_or_default();
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Screening(tokio.clone())));
    // With `amqps`, what is screened is what TLS has decrypted.
    let open = async move |uri: AMQPUri, _: Runtime<RuntimeParts<Tokio, Screening>>| {
        let tokio = Runtime::new(tokio.clone());
        let stream = uri.connect_with_config_async(TLSConfig::default(), &tokio).await?;
        let screen = Screen::new(frame_max, server.clone());
        Ok(AsyncTcpStream::Plain(Screened { stream, screen }))
    };
    Connection::connector(uri, runtime, open, properties).await
}

/// Holds the verdict on properties against the library's own, as a fuzzing target does. What could be too deep for the
/// library is not handed to it.
#[cfg(fuzzing)]
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
        let _ = (envelope.sha256(), envelope.age(std::time::SystemTime::now()), envelope.own_limit());
        let _ = (envelope.traceparent(), envelope.idempotency_key(), envelope.reply_correlation());
    }
}

/// What the library reads of these bytes, which come in pieces of at most `piece`, from a broker whose largest frame is
/// the default.
#[cfg(any(test, fuzzing))]
pub fn screened(bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let mut screen = Screen::new(128 * 1024, Server::default());
    let (mut out, mut into) = (Vec::new(), vec![0; piece]);
    for piece in bytes.chunks(piece) {
        let room = screen.room();
        room[..piece.len()].copy_from_slice(piece);
        screen.came(piece.len())?;
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

/// Tokio's reactor, whose streams are screened.
#[derive(Debug, Clone)]
struct Screening(Tokio);

impl Reactor for Screening {
    type TcpStream = Screened;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// The library registers no sockets.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Screened, _>(io::ErrorKind::Unsupported.into())
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
            Ok(Screened { stream, screen: Screen::new(0, Server::default()) })
        }
    }
}

/// A stream from which only frames come that the client library can parse.
struct Screened {
    stream: TokioStream,
    screen: Screen,
}

impl AsyncRead for Screened {
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
            screen.came(read)?;
        }
    }
}

impl AsyncWrite for Screened {
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

/// What is expected at the place up to which the bytes are judged.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The stream's first byte.
    First,
    Frame,
    /// The rest of a frame that is not looked into: so many bytes.
    Pass(usize),
    /// The rest of a header that has been replaced: so many bytes.
    Skip(usize),
}

/// Bytes between the socket and the library. What it holds is bounded by the largest frame.
struct Screen {
    /// `taken..judged` may go on to the library; `judged..filled` is not complete yet.
    bytes: Vec<u8>,
    taken: usize,
    judged: usize,
    filled: usize,
    next: Next,
    /// Bytes of the largest frame that the library takes.
    largest: usize,
    server: Server,
}

impl Screen {
    /// `frame_max` is what we ask for, or 0.
    fn new(frame_max: u32, server: Server) -> Self {
        let mut screen = Self {
            bytes: Vec::new(),
            taken: 0,
            judged: 0,
            filled: 0,
            next: Next::First,
            largest: usize::MAX,
            server,
        };
        screen.is_limited(frame_max);
        screen
    }

    /// In AMQP, 0 stands for no limit.
    fn is_limited(&mut self, frame_max: u32) {
        let limit = usize::try_from(frame_max).unwrap_or(usize::MAX);
        if limit > 0 {
            self.largest = self.largest.min(limit);
        }
    }

    /// Moves what may go on.
    fn take(&mut self, into: &mut [u8]) -> usize {
        let length = into.len().min(self.judged - self.taken);
        into[..length].copy_from_slice(&self.bytes[self.taken..self.taken + length]);
        self.taken += length;
        length
    }

    /// Where the socket's next bytes go. Nothing is left to take then.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.judged -= self.taken;
        self.taken = 0;
        if self.bytes.len() < self.filled + AT_ONCE / 2 {
            self.bytes.resize(self.filled + AT_ONCE, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// So many bytes came.
    fn came(&mut self, count: usize) -> io::Result<()> {
        self.filled += count;
        while self.judge()? {}
        Ok(())
    }

    /// Whether there may be more to judge.
    fn judge(&mut self) -> io::Result<bool> {
        let waiting = self.filled - self.judged;
        if waiting == 0 {
            return Ok(false);
        }
        match self.next {
            Next::First => {
                let first = self.bytes[self.judged];
                self.next = if first == b'A' { Next::Pass(PROTOCOL_HEADER) } else { Next::Frame };
            }
            Next::Frame => return self.judge_frame(waiting),
            Next::Pass(left) => {
                let passed = left.min(waiting);
                self.judged += passed;
                self.next = if passed == left { Next::Frame } else { Next::Pass(left - passed) };
            }
            Next::Skip(left) => {
                let skipped = left.min(waiting);
                self.replace(skipped, &[]);
                self.next = if skipped == left { Next::Frame } else { Next::Skip(left - skipped) };
            }
        }
        Ok(true)
    }

    fn judge_frame(&mut self, waiting: usize) -> io::Result<bool> {
        let frame = &self.bytes[self.judged..self.filled];
        let &[kind, _, _, a, b, c, d, ..] = frame else { return Ok(false) };
        let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let whole = size.saturating_add(HEAD + 1);
        match kind {
            // A body, or a heartbeat: nothing in it is parsed.
            3 | 8 => self.next = Next::Pass(whole),
            2 if whole > self.largest => {
                if waiting < HEAD + BEFORE_PROPERTIES {
                    return Ok(false);
                }
                let mark = marked(frame).ok_or_else(malformed)?;
                self.replace(HEAD + BEFORE_PROPERTIES, &mark);
                self.judged += mark.len();
                self.next = Next::Skip(whole - HEAD - BEFORE_PROPERTIES);
            }
            1 if whole > self.largest => return Err(malformed()),
            1 | 2 if waiting < whole => return Ok(false),
            2 => {
                let properties = frame.get(HEAD + BEFORE_PROPERTIES..whole - 1).ok_or_else(malformed)?;
                if readable::properties(properties) {
                    self.judged += whole;
                } else {
                    let mark = marked(frame).ok_or_else(malformed)?;
                    self.replace(whole, &mark);
                    self.judged += mark.len();
                }
            }
            1 => {
                self.judge_method(whole)?;
                self.judged += whole;
            }
            _ => return Err(malformed()),
        }
        Ok(true)
    }

    /// Puts other bytes in the place of the first that are not judged yet.
    fn replace(&mut self, count: usize, by: &[u8]) {
        self.bytes.splice(self.judged..self.judged + count, by.iter().copied());
        self.filled = self.filled - count + by.len();
    }

    fn judge_method(&mut self, whole: usize) -> io::Result<()> {
        let payload = &mut self.bytes[self.judged + HEAD..self.judged + whole - 1];
        let Some((&mut [class_high, class, method_high, method], arguments)) =
            payload.split_first_chunk_mut()
        else {
            return Err(malformed());
        };
        match (u16::from_be_bytes([class_high, class]), u16::from_be_bytes([method_high, method])) {
            // connection.start: after the version, the broker's properties.
            (10, 10) => {
                let properties = arguments.get(2..).ok_or_else(malformed)?;
                let length = readable::table(properties).ok_or_else(malformed)?;
                if let Some(version) = version_in(&properties[..length]) {
                    let _ = self.server.0.set(version);
                }
            }
            // connection.tune, from whose smaller frame_max on the library refuses a frame.
            (10, 30) => {
                if let Some(&[_, _, a, b, c, d]) = arguments.first_chunk() {
                    self.is_limited(u32::from_be_bytes([a, b, c, d]));
                }
            }
            // connection.close and channel.close: the code, and the broker's words, which may quote a sender's.
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

/// A content header with the channel, class and body size of this one, and the mark for properties.
fn marked(frame: &[u8]) -> Option<Vec<u8>> {
    let (channel, header) = (frame.get(1..3)?, frame.get(HEAD..HEAD + BEFORE_PROPERTIES)?);
    let mark = MARK.as_bytes();
    let (length, size) = (u8::try_from(mark.len()).ok()?, header.len() + 2 + 1 + mark.len());
    let size = u32::try_from(size).ok()?.to_be_bytes();
    let parts = [&[2], channel, &size, header, &CLUSTER_ID.to_be_bytes(), &[length], mark, &[FRAME_END]];
    Some(parts.concat())
}

fn version_in(table: &[u8]) -> Option<String> {
    let parsed: ParserResult<_, _> = parse_field_table(table);
    match parsed.ok()?.1.inner().get("version")? {
        AMQPValue::LongString(version) => Some(String::from_utf8_lossy(version.as_bytes()).into_owned()),
        _ => None,
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the broker sends is no AMQP 0-9-1")
}

#[cfg(test)]
mod tests;
