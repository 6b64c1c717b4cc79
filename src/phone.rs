//! Phone numbers.

/// How much of a number is checked before it is texted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PhoneCheck {
    /// libphonenumber's *possible*: the length fits the country's plan.
    #[default]
    Possible,
    /// libphonenumber's *valid*: the number lies in an assigned range.
    Valid,
}
