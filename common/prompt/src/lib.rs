//! What all prompts share: the line editor with history and completion, the words of a line, progress bars,
//! and lines that keep clear of both. It knows no command: what can be completed and what is kept comes from a [`Complete`].

mod bars;
mod editor;
mod lines;
mod output;
mod words;

pub use bars::{Bar, Bars};
pub use editor::{Candidate, Complete, Completion, LinePrinter, Prompt, Read};
pub use lines::{CommandLines, FirstWord, attended};
pub use output::{Output, ShownBars};
pub use words::{Cursor, Word, Words, cursor, split};
