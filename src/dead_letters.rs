//! The dead letters, for operators: what of a letter may be shown, the letters of one invite, and replaying a letter. The
//! commands and the console share it. `queue::dead` reads and settles the letters.

mod desk;
mod find;
pub(crate) mod mask;
mod record;
mod replay;
mod row;
mod view;
mod work;

pub(crate) use desk::{DeskError, LetterDesk, LetterFate, LetterMiss, LetterPage, ShownLetter};
pub(crate) use find::{InviteLetter, InviteLetters, LetterFetch, LettersOf, ReadLimits, matching};
pub(crate) use record::LetterRecord;
pub(crate) use replay::{LetterReplay, ReplayAction, ReplayMode, Replayer};
pub(crate) use row::{DeadLetterRow, LetterAddress};
pub(crate) use view::DeadLetterView;
pub(crate) use work::with;
