//! A group's options as flags. `groups add` and `groups set` share them.

use crate::{
    commands::WrongUsage,
    group::{
        options::{self, GroupOptions, OptionalLimit, seconds},
        template::Wording,
    },
    phone::PhoneCheck,
};
use std::{str::FromStr, time::Duration};

/// An option that an empty value clears.
#[derive(Debug, Clone)]
struct Clearable<T>(Option<T>);

fn clearable<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<Clearable<T>, String> + Clone {
    move |text| {
        if text.is_empty() { Ok(Clearable(None)) } else { parse(text).map(|value| Clearable(Some(value))) }
    }
}

/// Regions; their own type, as clap takes a bare `Vec` for a repeated flag.
#[derive(Debug, Clone)]
struct Countries(Vec<String>);

impl FromStr for Countries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        options::countries(text).map(Self)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct OptionArgs {
    /// The region that a number without a country code is read in [default: US]
    #[arg(long, value_name = "US", value_parser = options::region)]
    region: Option<String>,
    /// How much of a number is checked: possible or valid [default: possible]
    #[arg(long, value_name = "CHECK")]
    phone_check: Option<PhoneCheck>,
    /// The regions that the group texts; '' for any [default: any]
    #[arg(long, value_name = "US,CA")]
    countries: Option<Countries>,
    /// Digits in a session key, 4 to 9 [default: 6]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(4..=9))]
    key_length: Option<u8>,
    /// The text, with {link}, {key}, {token} and {group} [default: Join your session: {link} (code {key})]
    #[arg(long, value_name = "T", value_parser = options::template)]
    template: Option<String>,
    /// The link, with {key}, {token} and {group}; '' for the default [default: {PUBLIC_URL}/s/{token}]
    #[arg(long, value_name = "L", value_parser = clearable(options::link))]
    link: Option<Clearable<String>>,
    /// The number that the group's texts come from, in E.164; '' for the worker's own
    #[arg(long, value_name = "+1…", allow_hyphen_values = true, value_parser = clearable(options::sms_from))]
    sms_from: Option<Clearable<String>>,
    /// How long a session waits to be joined, 1s to 1day [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| seconds(text, 1..=86_400))]
    session_ttl: Option<Duration>,
    /// How long a joined session lasts at most, 1s to 30days [default: 12h]
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| seconds(text, 1..=2_592_000))]
    session_max: Option<Duration>,
    /// How long the key of an ended session is not given out again, 0s to 365days [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| seconds(text, 0..=31_536_000))]
    key_rest: Option<Duration>,
    /// Texts to one number in a window; 0 for no limit [default: 10/1h]
    #[arg(long, value_name = "N/WINDOW")]
    per_number: Option<OptionalLimit>,
    /// Texts to any one country in a window; 0 for no limit [default: none]
    #[arg(long, value_name = "N/WINDOW")]
    per_country: Option<OptionalLimit>,
    /// Invites of the group in a minute; '' or 0 for no limit [default: none]
    #[arg(long, value_name = "N", value_parser = per_minute)]
    per_minute: Option<Clearable<u32>>,
    /// Where the visitor's page leads, with {key}, {token} and {group}; '' for nowhere
    #[arg(long, value_name = "URL", value_parser = clearable(options::join_url))]
    join_url: Option<Clearable<String>>,
    /// What the group's visitors know it by; '' for its number
    #[arg(long, value_name = "NAME", value_parser = clearable(options::name))]
    name: Option<Clearable<String>>,
}

impl OptionArgs {
    /// Checks a template and a link that are given together. What the group has already does not count.
    pub(super) fn check_wording(&self, public_url: &str) -> Result<(), WrongUsage> {
        let (Some(template), Some(Clearable(link))) = (&self.template, &self.link) else { return Ok(()) };
        Wording::check(template, link.as_deref(), public_url).map(drop).map_err(WrongUsage::new)
    }

    /// Changes what was given.
    pub(super) fn apply(self, to: &mut GroupOptions) {
        put(&mut to.region, self.region);
        put(&mut to.phone_check, self.phone_check);
        put(&mut to.countries, self.countries.map(|countries| countries.0));
        put(&mut to.key_length, self.key_length);
        put(&mut to.template, self.template);
        put(&mut to.link, self.link.map(|link| link.0));
        put(&mut to.sms_from, self.sms_from.map(|from| from.0));
        put(&mut to.session_ttl, self.session_ttl);
        put(&mut to.session_max, self.session_max);
        put(&mut to.key_rest, self.key_rest);
        put(&mut to.per_number, self.per_number.map(|limit| limit.0));
        put(&mut to.per_country, self.per_country.map(|limit| limit.0));
        put(&mut to.per_minute, self.per_minute.map(|limit| limit.0));
        put(&mut to.join_url, self.join_url.map(|url| url.0));
        put(&mut to.name, self.name.map(|name| name.0));
    }
}

fn put<T>(to: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *to = value;
    }
}

fn per_minute(text: &str) -> Result<Clearable<u32>, String> {
    match text {
        "" | "0" => Ok(Clearable(None)),
        _ => match text.parse() {
            Ok(count @ 1..=1_000_000) => Ok(Clearable(Some(count))),
            _ => Err("must be a whole number from 1 to 1000000, or 0 for no limit".to_owned()),
        },
    }
}
