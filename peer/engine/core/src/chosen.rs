//! Which pieces are to be fetched. The others are never asked for.

use shoal_common::{Bitfield, PieceIndex};

use crate::selector::ItemSet;
use crate::state::Piece;
use crate::{Command, DownloadCore, RequestId};

impl DownloadCore {
    /// Whether a piece is to be fetched.
    pub(crate) fn is_chosen(&self, piece: PieceIndex) -> bool {
        self.chosen.as_ref().is_none_or(|chosen| chosen.has(piece.get()))
    }

    /// Only these pieces are to be fetched from now on. Requests that bring none of them are given up.
    pub(crate) fn choose(&mut self, pieces: &Bitfield) {
        if pieces.len() != self.layout.pieces() {
            return;
        }
        self.chosen = (!pieces.is_all()).then(|| ItemSet::from(pieces));
        self.left = 0;
        for piece in self.layout.iter() {
            let (chosen, state) = (pieces.has(piece), self.pieces[piece.as_usize()]);
            self.left += u32::from(chosen && state != Piece::Written);
            match state {
                Piece::Missing if chosen => self.selector.want(piece.get()),
                Piece::Missing => self.selector.unwant(piece.get()),
                _ => {}
            }
        }
        let useless = |request: &crate::state::Request| request.pending().all(|piece| !pieces.has(piece));
        let given_up = self.requests.iter().filter(|(_, request)| useless(request));
        let given_up: Vec<RequestId> = given_up.map(|(&id, _)| id).collect();
        for request in given_up {
            self.commands.push_back(Command::Cancel { request });
            self.release(request);
        }
        self.generation += 1;
        self.refill = true;
    }
}
