//! From a request to a checked invite: what a worker computes for an invite before its row, in nanoseconds on one core.
//!
//! Run it with `cargo bench --bench checked_invite`. `whole` calls the functions of `invite::process` in its order.
//! `stage` has them one by one. `machine` is a well-known function, by which machines can be compared.

use divan::{Bencher, black_box};
use futures::FutureExt as _;
use session_invite::internals::{
    AgeLimits, ApiKey, Authenticator, Caller, DEFAULT_TEXT, Directory, Envelope, GjwtToken, GkeyToken, Group,
    GroupId, GroupOptions, HmacKey, JwtSecret, LastUse, PhoneCheck, Request, RequestRecord, SecretsKey,
    SessionKey, TemplateValues, Token, Wording, gjwt, gkey, phone, process,
};
use sha2::{Digest as _, Sha256};
use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const API_KEY: &[u8] = b"test-api-key";
const JWT_SECRET: &[u8] = b"test-jwt-secret-of-thirty-two-by";
const GROUP: GroupId = GroupId::new(72).expect("1 … 2^53-1");
const AGE: AgeLimits = AgeLimits { max_age: Duration::from_mins(10), require_timestamp: false };

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(authenticator);
static GKEY: LazyLock<String> =
    LazyLock::new(|| format!("Bearer GKEY {}", gkey::mint(GROUP, "12345", API_KEY, now() + 3_600)));
static GJWT: LazyLock<String> = LazyLock::new(|| {
    format!("Bearer GJWT {}", gjwt::mint(GROUP, "12345", JWT_SECRET, None, now(), now() + 3_600))
});

fn main() {
    // The clock is too coarse for one run of a stage.
    divan::Divan::default().sample_size(100).sample_count(1_000).config_with_args().main();
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_secs().try_into().expect("a clock before the year 292,277,026,596")
}

/// An authenticator with one group in memory. Its pool is never used, since all measured requests are valid.
fn authenticator() -> Authenticator {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    let _entered = RUNTIME.enter();
    let pool = sqlx::PgPool::connect_lazy("postgres://unused@127.0.0.1:1/unused").expect("a URL");
    let secrets = SecretsKey::parse(&format!("{}A", "k".repeat(42))).expect("32 bytes in base64");
    let directory = Directory::of(vec![group()], pool.clone(), secrets);
    Authenticator::new(Arc::new(directory), tokio_util::sync::CancellationToken::new())
}

fn group() -> Group {
    Group {
        id: GROUP,
        enabled: true,
        paused_at: None,
        options: GroupOptions::default(),
        wording: Wording::check(DEFAULT_TEXT, None, "https://invite.example").expect("a template"),
        join: None,
        api_keys: vec![ApiKey { key: HmacKey::from_secret(API_KEY), last_use: LastUse::default() }],
        jwt_secrets: vec![JwtSecret {
            kid: None,
            key: HmacKey::from_secret(JWT_SECRET),
            last_use: LastUse::default(),
        }],
        keys_missing: false,
    }
}

/// A body with all fields of the usual request.
fn body(authorization: &str) -> Vec<u8> {
    format!(
        r#"{{"authorization":"{authorization}","groupid":72,"sessiontype":1,"smsPhone":"+14152000001","sessionParams":{{"camera":"back","resolution":"352x288"}}}}"#
    )
    .into_bytes()
}

/// The envelope of a delivery with this body. The body moves, and the properties are copied.
fn envelope(body: Vec<u8>) -> Envelope {
    let id = black_box("01930a5e-8f6b-7c3d-9e1f-2a3b4c5d6e7f");
    Envelope {
        body,
        message_id: Some(id.to_owned()),
        correlation_id: Some(id.to_owned()),
        reply_to: Some(black_box("amq.gen-Xa2cWq9bT1mN0pQrS3tUvw").to_owned()),
        content_type: Some(black_box("application/json").to_owned()),
        received: Some(Instant::now()),
        ..Envelope::default()
    }
}

/// The steps of `invite::process`, from the delivery to the row's values.
fn checked(envelope: &Envelope) -> RequestRecord {
    let request = Request::parse(envelope).expect("a good shape");
    let caller = authenticated(&request, envelope);
    assert!(request.groupid.as_ref().is_ok_and(|named| *named == caller.group.id));
    let mut record = process::record(&AGE, envelope, &caller);
    process::check_fields(&AGE, envelope, &request, &caller, &mut record).expect("good fields");
    record
}

fn authenticated(request: &Request<'_>, envelope: &Envelope) -> Caller {
    let credential = request.credential(envelope).expect("a credential");
    let caller = AUTHENTICATOR.authenticate(&credential).now_or_never().expect("no query");
    caller.expect("no trouble").expect("no refusal")
}

#[divan::bench_group]
mod whole {
    use super::*;

    fn run(bencher: Bencher, body: &[u8]) {
        // The client library allocates the body, so its copy does not count.
        bencher.with_inputs(|| body.to_vec()).bench_local_values(|body| checked(&envelope(body)));
    }

    #[divan::bench]
    fn gkey(bencher: Bencher) {
        run(bencher, &body(&GKEY));
    }

    #[divan::bench]
    fn gjwt(bencher: Bencher) {
        run(bencher, &body(&GJWT));
    }
}

#[divan::bench_group]
mod stage {
    use super::*;

    #[divan::bench]
    fn a_envelope(bencher: Bencher) {
        bencher.with_inputs(|| body(&GKEY)).bench_local_values(envelope);
    }

    #[divan::bench]
    fn b_parse(bencher: Bencher) {
        let envelope = envelope(body(&GKEY));
        bencher.bench_local(|| Request::parse(black_box(&envelope)).is_ok());
    }

    fn credential(bencher: Bencher, body: Vec<u8>) {
        let envelope = envelope(body);
        let request = Request::parse(&envelope).expect("a good shape");
        bencher.bench_local(|| black_box(&request).credential(&envelope).is_ok());
    }

    #[divan::bench]
    fn d_credential_gkey(bencher: Bencher) {
        credential(bencher, body(&GKEY));
    }

    #[divan::bench]
    fn d_credential_gjwt(bencher: Bencher) {
        credential(bencher, body(&GJWT));
    }

    fn authenticate(bencher: Bencher, body: Vec<u8>) {
        let envelope = envelope(body);
        let request = Request::parse(&envelope).expect("a good shape");
        let credential = request.credential(&envelope).expect("a credential");
        bencher.bench_local(|| AUTHENTICATOR.authenticate(black_box(&credential)).now_or_never().is_some());
    }

    #[divan::bench]
    fn e_authenticate_gkey(bencher: Bencher) {
        authenticate(bencher, body(&GKEY));
    }

    #[divan::bench]
    fn e_authenticate_gjwt(bencher: Bencher) {
        authenticate(bencher, body(&GJWT));
    }

    #[divan::bench]
    fn f_record(bencher: Bencher) {
        let envelope = envelope(body(&GKEY));
        let request = Request::parse(&envelope).expect("a good shape");
        let caller = authenticated(&request, &envelope);
        bencher.bench_local(|| process::record(&AGE, black_box(&envelope), &caller));
    }

    #[divan::bench]
    fn f_record_sha256_alone(bencher: Bencher) {
        let envelope = envelope(body(&GKEY));
        bencher.bench_local(|| black_box(&envelope).sha256());
    }

    #[divan::bench]
    fn g_fields(bencher: Bencher) {
        let envelope = envelope(body(&GKEY));
        let request = Request::parse(&envelope).expect("a good shape");
        let group = group();
        let mut record = RequestRecord::new(GROUP, "gkey:12345".to_owned());
        bencher.bench_local(|| black_box(&request).fields(&group, &mut record));
    }

    #[divan::bench(args = ["+14152000001", "111-000-0000", "+442079460958"])]
    fn g_fields_phone_alone(text: &str) -> bool {
        phone::parse(black_box(text), "US", PhoneCheck::Possible, &[]).is_ok()
    }

    #[divan::bench]
    fn h_key_and_token() -> (SessionKey, Token) {
        (SessionKey::draw(6, 0), Token::draw())
    }

    #[divan::bench]
    fn i_text(bencher: Bencher) {
        let group = group();
        let (key, token) = (SessionKey::example(6), Token::example());
        let values = TemplateValues { key: &key, token: &token, group: GROUP };
        bencher.bench_local(|| group.wording.render(black_box(&values)));
    }
}

#[divan::bench_group]
mod credential {
    use super::*;

    #[divan::bench]
    fn gkey_parse() -> bool {
        GkeyToken::parse(black_box(&GKEY["Bearer GKEY ".len()..])).is_ok()
    }

    #[divan::bench]
    fn gkey_hmac(bencher: Bencher) {
        let token = GkeyToken::parse(&GKEY["Bearer GKEY ".len()..]).expect("a token");
        let (key, now) = (HmacKey::from_secret(API_KEY), now());
        bencher.bench_local(|| black_box(&token).verify(token.group_user(|_| None), [&key], now).is_ok());
    }

    #[divan::bench]
    fn gjwt_parse() -> bool {
        GjwtToken::parse(black_box(&GJWT["Bearer GJWT ".len()..])).is_ok()
    }

    #[divan::bench]
    fn gjwt_hmac(bencher: Bencher) {
        let token = GjwtToken::parse(&GJWT["Bearer GJWT ".len()..]).expect("a token");
        let (key, now) = (HmacKey::from_secret(JWT_SECRET), now());
        bencher.bench_local(|| black_box(&token).verify([(None, &key)], now).is_ok());
    }
}

#[divan::bench_group]
mod machine {
    use super::*;

    #[divan::bench]
    fn sha256_of_1_kib() -> [u8; 32] {
        Sha256::digest(black_box([0x5a_u8; 1024])).into()
    }
}
