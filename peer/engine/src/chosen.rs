//! Which files of a folder are to be fetched.

use std::sync::Arc;

use shoal_common::{Bitfield, Layout};

/// Which files of a folder are to be fetched; of content that is one file it is that one. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen(Option<Arc<[bool]>>);

impl Chosen {
    /// All of them, and the empty folders.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// Those for which `files` says so, in the order of the layout, and no empty folders. All of them if all are.
    #[must_use]
    pub fn of(files: Vec<bool>) -> Self {
        Self((!files.iter().all(|&chosen| chosen)).then(|| files.into()))
    }

    /// Whether it is everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the file of that number is chosen.
    #[must_use]
    pub fn has(&self, file: usize) -> bool {
        self.0.as_ref().is_none_or(|files| files.get(file).copied().unwrap_or(false))
    }

    /// The chosen files, by their numbers.
    pub fn files(&self, layout: &Layout) -> impl Iterator<Item = usize> {
        (0..layout.files()).filter(|&file| self.has(file))
    }

    /// The pieces of the chosen files.
    #[must_use]
    pub fn pieces(&self, layout: &Layout) -> Bitfield {
        if self.is_all() {
            return Bitfield::all(layout);
        }
        let mut pieces = Bitfield::none(layout);
        for piece in self.files(layout).flat_map(|file| layout.pieces_of(file)) {
            pieces.insert(piece);
        }
        pieces
    }

    /// The bytes of the chosen files.
    #[must_use]
    pub fn bytes(&self, layout: &Layout) -> u64 {
        let length = |file| layout.extent(file).end - layout.extent(file).start;
        if self.is_all() { layout.size() } else { self.files(layout).map(length).sum() }
    }
}
