//! The provider's error codes (<https://www.twilio.com/docs/api/errors>). Each constant has the title of its page there
//! as its name.

#![expect(missing_docs, reason = "the names are the titles of the pages")]

/// The type of a code in the provider's JSON.
pub type ErrorCode = i64;

// The account and the API.
pub const ACCOUNT_NOT_ACTIVE: ErrorCode = 10_001;
pub const INVALID_PARAMETER: ErrorCode = 20_001;
pub const AUTHENTICATION_FAILED: ErrorCode = 20_003;
pub const METHOD_NOT_ALLOWED: ErrorCode = 20_004;
pub const FORBIDDEN: ErrorCode = 20_403;
pub const NOT_FOUND: ErrorCode = 20_404;
pub const TOO_MANY_REQUESTS: ErrorCode = 20_429;
pub const INTERNAL_SERVER_ERROR: ErrorCode = 20_500;
pub const SERVICE_UNAVAILABLE: ErrorCode = 20_503;

// Answers to a request to send a text.
pub const TO_INVALID: ErrorCode = 21_211;
pub const FROM_INVALID: ErrorCode = 21_212;
pub const NUMBER_INVALID: ErrorCode = 21_217;
pub const REGION_NOT_ENABLED: ErrorCode = 21_408;
pub const BODY_MISSING: ErrorCode = 21_602;
pub const FROM_MISSING: ErrorCode = 21_603;
pub const TO_MISSING: ErrorCode = 21_604;
pub const FROM_CANNOT_SEND: ErrorCode = 21_606;
pub const TO_NOT_VERIFIED: ErrorCode = 21_608;
pub const STATUS_CALLBACK_INVALID: ErrorCode = 21_609;
pub const TO_UNSUBSCRIBED: ErrorCode = 21_610;
pub const FROM_QUEUE_FULL: ErrorCode = 21_611;
pub const TO_NOT_REACHABLE_FROM: ErrorCode = 21_612;
pub const TO_NOT_MOBILE: ErrorCode = 21_614;
pub const BODY_TOO_LONG: ErrorCode = 21_617;
pub const TO_IS_LANDLINE: ErrorCode = 21_635;
pub const FROM_NOT_OF_ACCOUNT: ErrorCode = 21_659;
pub const FROM_NOT_SMS_CAPABLE: ErrorCode = 21_661;
pub const VALIDITY_PERIOD_INVALID: ErrorCode = 90_007;

// Reports of the carriers.
pub const QUEUE_OVERFLOW: ErrorCode = 30_001;
pub const ACCOUNT_SUSPENDED: ErrorCode = 30_002;
pub const HANDSET_UNREACHABLE: ErrorCode = 30_003;
pub const MESSAGE_BLOCKED: ErrorCode = 30_004;
pub const HANDSET_UNKNOWN: ErrorCode = 30_005;
pub const CARRIER_UNREACHABLE: ErrorCode = 30_006;
pub const MESSAGE_FILTERED: ErrorCode = 30_007;
pub const SENDER_NOT_REGISTERED: ErrorCode = 30_018;
pub const CAMPAIGN_RATE_EXCEEDED: ErrorCode = 30_022;
pub const TOLL_FREE_NOT_VERIFIED: ErrorCode = 30_032;
pub const CAMPAIGN_SUSPENDED: ErrorCode = 30_033;
pub const NUMBER_NOT_REGISTERED: ErrorCode = 30_034;

// The account's limits.
pub const RATE_EXCEEDED: ErrorCode = 63_017;
pub const DAILY_LIMIT_EXCEEDED: ErrorCode = 63_038;
