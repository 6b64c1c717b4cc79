//! The session key that an agent joins with, and the token of the visitor's link.

use crate::masked::debug_shows;
use rand::{RngExt, distr::Alphanumeric};
use std::{fmt, ops::RangeInclusive};

/// Draws that may collide before a key gets one digit more (contract, section 5).
const DRAWS_AT_ONE_LENGTH: u32 = 8;

/// The digits that an agent joins with, leading zeros included. Unique among the sessions of the group that hold a key. An
/// identifier, not a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(String);

debug_shows!(SessionKey {});

impl SessionKey {
    /// How many digits a key may have. The table has the same rule.
    const LENGTHS: RangeInclusive<usize> = 4..=12;

    /// Draws an evenly distributed key, from a generator that the operating system's CSPRNG seeds.
    ///
    /// `draw` counts the keys that this session has drawn before. After every eighth draw, the key has one digit more.
    pub fn draw(length: u8, draw: u32) -> Self {
        let digits = usize::from(length) + (draw / DRAWS_AT_ONE_LENGTH) as usize;
        let mut rng = rand::rng();
        Self((0..digits).map(|_| char::from(b'0' + rng.random_range(0..10_u8))).collect())
    }

    /// Reads a key from outside: 4 to 12 digits, 0 to 9.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = Self::LENGTHS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| Self(text.to_owned()))
    }

    /// A key of so many digits, at most 12, to check a template before there is a session.
    pub fn example(digits: usize) -> Self {
        Self("123456789012".chars().take(digits).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 16 random base62 characters, which open the visitor's page. A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// In characters.
    pub const LENGTH: usize = 16;

    /// A random token.
    pub fn draw() -> Self {
        Self(rand::rng().sample_iter(Alphanumeric).take(Self::LENGTH).map(char::from).collect())
    }

    /// Reads a token from outside.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == Self::LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned()))
    }

    /// A token to check a template before there is a session.
    pub fn example() -> Self {
        Self("aB3dE5gH7jK9mN1p".to_owned())
    }

    /// The characters, which are a secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ninth_draw_has_one_digit_more() {
        assert_eq!(SessionKey::draw(6, 0).as_str().len(), 6);
        assert_eq!(SessionKey::draw(6, 7).as_str().len(), 6);
        assert_eq!(SessionKey::draw(6, 8).as_str().len(), 7);
        assert_eq!(SessionKey::draw(9, 16).as_str().len(), 11);
    }

    #[test]
    fn drawn_keys_and_tokens_are_read_again_and_others_are_refused() {
        for draw in [0, 8, 16] {
            let key = SessionKey::draw(4, draw);
            assert_eq!(SessionKey::parse(key.as_str()), Some(key));
        }
        for token in [Token::draw(), Token::example()] {
            assert_eq!(Token::parse(token.as_str()), Some(token));
        }
        assert_eq!(SessionKey::parse(SessionKey::example(9).as_str()), Some(SessionKey::example(9)));
        for bad in ["", "123", "12345a", "1234567890123", "\u{661}234"] {
            assert_eq!(SessionKey::parse(bad), None, "{bad}");
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
        assert_eq!(Token::parse("aB3aB3aB3aB3aB3-"), None);
    }

    #[test]
    fn keys_are_digits_evenly_drawn() {
        let mut seen = [0_u32; 10];
        for _ in 0..5_000 {
            for digit in SessionKey::draw(4, 0).as_str().bytes() {
                seen[usize::from(digit - b'0')] += 1;
            }
        }
        // 20,000 draws of ten digits: 2,000 each, standard deviation 42; six of them leave no room for chance.
        assert!(seen.iter().all(|count| (1_745..=2_255).contains(count)), "{seen:?}");
    }

    #[test]
    fn tokens_are_base62_and_like_keys_hidden_from_debug() {
        let (key, token) = (SessionKey::draw(9, 0), Token::draw());
        assert!(!format!("{key:?}").contains(key.as_str()));
        assert_eq!(token.as_str().len(), 16);
        assert!(token.as_str().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(!format!("{token:?}").contains(token.as_str()));
    }
}
