//! What is expected of every [`PieceSource`]: one suite that each implementation is run against, with a remote party
//! that behaves as the suite asks. Only for tests.

mod fake;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use shoal_common::{Layout, PieceIndex};
use tokio::sync::mpsc;

pub use crate::conformance::fake::{Behaviour, FLOOD, FakeSource, piece_of, sample_file};

use crate::buffer::{Arrived, PieceBuf};
use crate::pool::{POOL_BLOCKS, Pool};
use crate::rate::Limiters;
use crate::source::PieceSource;
use shoal_engine_core::RequestId;
use shoal_engine_core::{Have, PieceRun, Run, SourceError};

/// Makes sources of one kind for the suite.
pub trait Stand: Sync {
    /// The kind.
    type Source: PieceSource;

    /// A source of the file `bytes` whose remote party holds it whole and behaves so.
    fn source(
        &self,
        bytes: Arc<[u8]>,
        layout: Layout,
        behaviour: Behaviour,
    ) -> impl Future<Output = Self::Source> + Send;
}

/// What an implementation does wrong.
#[derive(Debug, thiserror::Error)]
#[error("{check}: {what}")]
pub struct Violation {
    /// The check that failed.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
}

/// Longest time for anything that must end by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long anything is watched that must not end.
const A_WHILE: Duration = Duration::from_millis(200);
/// Piece length and size of the suite's file: five pieces, the last one short.
const PIECE: u32 = 64 * 1024;
const SIZE: usize = 4 * PIECE as usize + 1_000;

/// Runs the whole suite.
///
/// # Errors
/// The first violation.
pub async fn check(stand: &impl Stand) -> Result<(), Violation> {
    let suite = Suite { stand, bytes: Arc::new([]), layout: Layout::new(0, PIECE).map_err(impossible)? };
    let (bytes, content) = sample_file(SIZE, PIECE, 7);
    let suite = Suite { bytes, layout: content.layout().clone(), ..suite };
    suite.honest().await?;
    suite.many_at_once().await?;
    suite.runs().await?;
    suite.cancelled_anywhere().await?;
    suite.cancelled_by_the_engine().await?;
    suite.lies().await?;
    suite.silence().await?;
    suite.disconnect().await?;
    suite.refusals().await?;
    suite.lost().await?;
    suite.flood().await
}

fn impossible(error: impl std::fmt::Display) -> Violation {
    Violation { check: "the suite itself", what: error.to_string() }
}

struct Suite<'a, S> {
    stand: &'a S,
    bytes: Arc<[u8]>,
    layout: Layout,
}

/// A request as the engine makes it.
struct Request {
    run: PieceRun,
    buffer: PieceBuf,
    filling: Arc<crate::buffer::Filling>,
    arrived: mpsc::Receiver<Arrived>,
}

impl Request {
    fn new(run: PieceRun) -> Self {
        let (sender, arrived) = mpsc::channel(POOL_BLOCKS);
        let pool = Pool::new(POOL_BLOCKS);
        let (buffer, filling) = PieceBuf::new(RequestId(0), run.clone(), pool, Limiters::none(), sender);
        Self { run, buffer, filling, arrived }
    }
}

impl<S: Stand> Suite<'_, S> {
    async fn source(&self, behaviour: Behaviour) -> S::Source {
        self.stand.source(self.bytes.clone(), self.layout.clone(), behaviour).await
    }

    fn piece(&self, index: u32) -> Result<PieceIndex, Violation> {
        self.layout.piece(index).ok_or_else(|| impossible("no such piece"))
    }

    fn single(&self, index: u32) -> Result<PieceRun, Violation> {
        Ok(PieceRun::new(self.layout.clone(), self.piece(index)?, 1))
    }

    /// Fetches a run; the bytes that arrived, piece by piece.
    async fn fetch(
        &self,
        check: &'static str,
        source: &S::Source,
        run: PieceRun,
    ) -> Result<(Result<u64, SourceError>, Vec<(PieceIndex, Vec<u8>)>), Violation> {
        let mut request = Request::new(run);
        let fetched = tokio::time::timeout(PATIENCE, source.fetch(request.run, request.buffer)).await;
        let fetched = fetched.map_err(|_| Violation { check, what: "the fetch does not end".into() })?;
        let mut pieces = Vec::new();
        while let Ok(arrived) = request.arrived.try_recv() {
            let bytes = arrived.data.blocks.iter().flat_map(|block| block.bytes().to_vec()).collect();
            pieces.push((arrived.data.piece, bytes));
        }
        Ok((fetched.map(|buffer| buffer.remaining()), pieces))
    }

    /// Fetches a run that must come whole and right.
    async fn must_serve(
        &self,
        check: &'static str,
        source: &S::Source,
        run: PieceRun,
    ) -> Result<(), Violation> {
        let (result, pieces) = self.fetch(check, source, run.clone()).await?;
        let right = pieces.iter().all(|(piece, bytes)| bytes == piece_of(&self.bytes, &self.layout, *piece));
        let all = pieces.iter().map(|(piece, _)| *piece).eq(run.pieces());
        if result == Ok(0) && right && all {
            return Ok(());
        }
        let what = format!("{result:?} and {} pieces, right: {right}, for {run:?}", pieces.len());
        Err(Violation { check, what })
    }

    async fn honest(&self) -> Result<(), Violation> {
        self.serves_all("an honest source serves every piece", Behaviour::Honest).await
    }

    async fn flood(&self) -> Result<(), Violation> {
        self.serves_all("a flood of what it holds does not get in the way of pieces", Behaviour::Floods).await
    }

    /// The source says that it holds the file, and every piece comes.
    async fn serves_all(&self, check: &'static str, behaviour: Behaviour) -> Result<(), Violation> {
        let source = self.source(behaviour).await;
        if !matches!(&*source.have().borrow(), Have::All) {
            let mut have = source.have();
            let all = have.wait_for(|have| match have {
                Have::All => true,
                Have::Bits(bits) => bits.is_all(),
            });
            let seen = tokio::time::timeout(PATIENCE, all).await.is_ok_and(|seen| seen.is_ok());
            if !seen {
                return Err(Violation { check, what: "it does not say that it holds the file".into() });
            }
        }
        for index in (0..self.layout.pieces()).rev() {
            self.must_serve(check, &source, self.single(index)?).await?;
        }
        Ok(())
    }

    async fn many_at_once(&self) -> Result<(), Violation> {
        let check = "answers to several requests do not mix";
        let source = self.source(Behaviour::Honest).await;
        let at_once =
            u32::try_from(source.limits().max_in_flight).unwrap_or(u32::MAX).clamp(1, self.layout.pieces());
        let runs = (0..at_once).map(|index| self.single(index)).collect::<Result<Vec<_>, _>>()?;
        let fetches = runs.into_iter().map(|run| self.must_serve(check, &source, run));
        futures::future::try_join_all(fetches).await.map(|_| ())
    }

    async fn runs(&self) -> Result<(), Violation> {
        let source = self.source(Behaviour::Honest).await;
        match source.limits().run {
            Run::Single => Ok(()),
            Run::UpTo(most) => {
                let run =
                    PieceRun::new(self.layout.clone(), self.piece(1)?, most.min(self.layout.pieces() - 1));
                self.must_serve("a run comes in order", &source, run).await
            }
        }
    }

    /// Polls a fetch a number of times and drops it. Late bytes must not land in the next request.
    async fn cancelled_anywhere(&self) -> Result<(), Violation> {
        let check = "a cancelled request leaves nothing for the next";
        let source = self.source(Behaviour::Honest).await;
        for polls in 0..12 {
            let request = Request::new(self.single(0)?);
            {
                let mut fetch = pin!(source.fetch(request.run, request.buffer));
                let mut left = polls;
                let cancelled = std::future::poll_fn(|context| {
                    if left == 0 {
                        return Poll::Ready(());
                    }
                    left -= 1;
                    fetch.as_mut().poll(context).map(|_| ())
                });
                // Without an answer the fetch is not polled again, and is dropped all the same.
                let _ = tokio::time::timeout(A_WHILE, cancelled).await;
            }
            self.must_serve(check, &source, self.single(1)?).await?;
        }
        Ok(())
    }

    async fn cancelled_by_the_engine(&self) -> Result<(), Violation> {
        let check = "a closed buffer ends the fetch";
        let source = self.source(Behaviour::Honest).await;
        let request = Request::new(self.single(0)?);
        request.filling.close();
        let fetched = tokio::time::timeout(PATIENCE, source.fetch(request.run, request.buffer)).await;
        match fetched {
            Ok(Err(_)) => self.must_serve(check, &source, self.single(1)?).await,
            Ok(Ok(_)) => Err(Violation { check, what: "it succeeds without having delivered".into() }),
            Err(_) => Err(Violation { check, what: "it does not end".into() }),
        }
    }

    async fn lies(&self) -> Result<(), Violation> {
        for behaviour in [Behaviour::Short, Behaviour::Long, Behaviour::Wrong] {
            let check = "a lying remote party is found out, or its bytes are left to the engine to check";
            let source = self.source(behaviour).await;
            let (result, pieces) = self.fetch(check, &source, self.single(0)?).await?;
            let arrived = pieces.len();
            // The engine bans a source that sends a wrong piece, or gives back a buffer that is not full.
            let consistent = match result {
                Ok(0) => arrived == 1 && behaviour != Behaviour::Short,
                Ok(_) => arrived == 0 && behaviour == Behaviour::Short,
                Err(_) => true,
            };
            if !consistent {
                return Err(Violation {
                    check,
                    what: format!("{behaviour:?}: {result:?}, {arrived} pieces"),
                });
            }
        }
        Ok(())
    }

    async fn silence(&self) -> Result<(), Violation> {
        let check = "silence is neither success nor a hang of the others";
        let source = self.source(Behaviour::SilentAfter(u64::from(PIECE) / 2)).await;
        let request = Request::new(self.single(0)?);
        let silent = tokio::time::timeout(A_WHILE, source.fetch(request.run, request.buffer)).await;
        if let Ok(Ok(_)) = silent {
            return Err(Violation { check, what: "it succeeds".into() });
        }
        let other = self.source(Behaviour::Honest).await;
        self.must_serve(check, &other, self.single(0)?).await
    }

    async fn disconnect(&self) -> Result<(), Violation> {
        let check = "a lost connection is an error";
        let source = self.source(Behaviour::GoneAfter(u64::from(PIECE) / 2)).await;
        match self.fetch(check, &source, self.single(0)?).await? {
            (Err(_), pieces) if pieces.is_empty() => {}
            (result, pieces) => {
                return Err(Violation { check, what: format!("{result:?}, {} pieces", pieces.len()) });
            }
        }
        match self.fetch(check, &source, self.single(1)?).await?.0 {
            Err(_) => Ok(()),
            Ok(_) => Err(Violation { check, what: "the next fetch succeeds".into() }),
        }
    }

    /// A source may have lost pieces that it said it holds.
    async fn lost(&self) -> Result<(), Violation> {
        let check = "a piece that is not there any more is refused, and is all that is";
        let source = self.source(Behaviour::Lost(2)).await;
        match self.fetch(check, &source, self.single(2)?).await? {
            (Err(SourceError::Gone(_)), pieces) if pieces.is_empty() => Ok(()),
            (Err(SourceError::NotNow { .. } | SourceError::Busy(_)), pieces) if pieces.is_empty() => {
                self.must_serve(check, &source, self.single(1)?).await
            }
            (result, pieces) => {
                Err(Violation { check, what: format!("{result:?}, {} pieces", pieces.len()) })
            }
        }
    }

    async fn refusals(&self) -> Result<(), Violation> {
        let check = "a refusal arrives as one";
        let after = Duration::from_millis(700);
        let refusing = self.source(Behaviour::Refuses(after)).await;
        let busy = self.source(Behaviour::Busy(after)).await;
        for source in [refusing, busy] {
            let (result, _) = self.fetch(check, &source, self.single(0)?).await?;
            match result {
                Err(SourceError::NotNow { piece, .. }) if piece == self.piece(0)? => {}
                Err(SourceError::Busy(_)) => {}
                other => return Err(Violation { check, what: format!("{other:?}") }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FakeStand;

    impl Stand for FakeStand {
        type Source = FakeSource;

        async fn source(&self, bytes: Arc<[u8]>, layout: Layout, behaviour: Behaviour) -> FakeSource {
            let run = Run::UpTo(3);
            let limits = shoal_engine_core::Limits {
                max_in_flight: 4,
                min_in_flight: 1,
                max_in_flight_bytes: 1 << 20,
                run,
            };
            FakeSource::new(bytes, layout).behaving(behaviour).limited(limits)
        }
    }

    #[tokio::test]
    async fn the_fake_conforms() {
        check(&FakeStand).await.unwrap();
    }
}
